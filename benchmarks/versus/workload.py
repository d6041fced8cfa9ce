"""What both sides are told to do: the same model, prompts, rewards and optimizer settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any, NamedTuple, Self

from posttrain.tasks import Problem, Task, load_task

TASK = "addition"


@dataclass(frozen=True)
class Workload:
    """One measurement, as it is handed to each side's process."""

    folder: str  # the model, in the Hugging Face layout
    prompts: int  # prompts per step
    samples: int  # completions per prompt
    new_tokens: int  # longest completion, tokens
    steps: int  # steps in all, the warm-up step included
    precision: str  # "fp32" or "bf16"
    threads: int  # of each process
    fixed_length: bool  # True: nothing ends a completion before `new_tokens`
    trl_micro_batch: int  # completions in one of TRL's training passes; must divide prompts * samples
    trl_checkpointing: bool  # True: TRL computes activations again in the backward pass, as is its default
    seed: int = 0
    lr: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.95)
    max_grad_norm: float = 1.0
    temperature: float = 1.0
    clip: float = 0.2  # ε of the clipped ratio, both ways
    warm_tokens: int = 0  # instead of new_tokens in the first step, which warms up; 0: as many
    verified: bool = False  # True: rewards are the task's own, and groups of equal ones teach nothing

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Self:
        told = json.loads(text)
        return cls(**{**told, "betas": tuple(told["betas"])})

    def longest(self, step: int) -> int:
        """Most tokens of a completion in this step, from 0."""
        return self.new_tokens if step else self.warm_tokens or self.new_tokens

    def problems(self) -> list[Problem]:
        """The problems of all steps, in the order in which posttrain's source draws them."""
        task = load_task(TASK)
        return [task.train(index, self.seed) for index in range(self.steps * self.prompts)]


class Drawn(NamedTuple):
    """What one update learns from; completions of one prompt side by side."""

    prompts: list[list[int]]  # token ids
    completions: list[list[int]]
    rewards: list[float]  # one for each completion, all different


@dataclass(frozen=True)
class UpdateWorkload(Workload):
    """A measurement of the update alone, on token ids drawn at random."""

    prompt_tokens: int = 46  # of each prompt: the task's through the model's chat template
    shared_tokens: int = 30  # that all prompts begin with: the template's own
    vocabulary: int = 49152

    def draw(self, step: int) -> Drawn:
        """The same on both sides.  Completions have a third of the longest's tokens, or more; all, if told to."""
        random = Random(f"{self.seed}/{step}")

        def ids(count: int) -> list[int]:
            return [random.randrange(self.vocabulary) for _ in range(count)]

        shared = ids(self.shared_tokens)
        rows = self.prompts * self.samples
        longest = self.longest(step)
        shortest = longest if self.fixed_length else max(1, longest // 3)
        return Drawn([shared + ids(self.prompt_tokens - self.shared_tokens) for _ in range(self.prompts)],
                     [ids(random.randint(shortest, longest)) for _ in range(rows)],
                     [random.random() for _ in range(rows)])


def draw_reward(index: int, completion: str) -> float:
    """A number in [0, 1) that only the completion and its place in the run decide."""
    digest = hashlib.blake2b(f"{index}/{completion}".encode("utf-8", "replace"), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


@dataclass
class RandomReward:
    """The task's problems with rewards that are all different, so that every group has something to teach.

    With a real verifier a group of equal rewards trains nothing: posttrain leaves it out and TRL computes it
    nevertheless, and the two would be given different work.
    """

    task: Task
    name: str = TASK
    trusted: bool = True  # scored in the process itself, in order
    scored: int = 0  # completions so far
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def train(self, index: int, seed: int) -> Problem:
        return self.task.train(index, seed)

    def heldout(self, count: int) -> list[Problem]:
        return self.task.heldout(count)

    def score(self, problem: Problem, completion: str) -> float:
        return self.draw(completion)

    def draw(self, completion: str) -> float:
        """The reward of the next completion."""
        self.scored += 1
        return draw_reward(self.scored, completion)
