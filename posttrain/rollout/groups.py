"""The source of fresh groups: new problems each step, several samples of each, scored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.core import Groups
from posttrain.core.errors import PosttrainError
from posttrain.core.seeds import derive
from posttrain.policies.causal_lm import Sequences
from posttrain.policies.prompts import Prompter
from posttrain.rewards.scoring import Scored, Scorer
from posttrain.rollout.engine import Completions, Engine, Sampling
from posttrain.tasks.task import Problem, Task

_NUMBER = re.compile(r"(?<!\d)-?\d+(?:,\d{3})*(?:\.\d+)?", re.ASCII)


def final_answer(text: str) -> str:
    """What a completion answers, as read without its task: its last number in one spelling, else all of its text.

    "so 1,200.50" and "1200.5" answer the same; a completion without digits answers itself, stripped.
    """
    numbers = _NUMBER.findall(text)
    if not numbers:
        return text.strip()
    last: str = numbers[-1].replace(",", "")
    return last.rstrip("0").rstrip(".") if "." in last else last


def answer_ids(texts: Sequence[str], group: Tensor) -> Tensor:
    """[B] long: the number of each completion's final answer, counted from 0 within its group [B]."""
    seen: dict[int, dict[str, int]] = {}
    ids = []
    for text, unit in zip(texts, group.tolist(), strict=True):
        answers = seen.setdefault(unit, {})
        ids.append(answers.setdefault(final_answer(text), len(answers)))
    return torch.tensor(ids, dtype=torch.long)


@dataclass(frozen=True)
class Rollout:
    """What one step learns from, and the same as text for whoever reads the run.  R rows were sampled, B kept."""

    batch: Groups
    prompts: list[str]  # [B]
    completions: list[str]  # [B]
    failures: list[str]  # one line for each verifier call that gave no number
    dropped: int  # rows left out because of them: R − B


class GroupSource:
    """`prompts` problems a step, `samples` completions each.  A step's batch depends on its number alone."""

    def __init__(self, task: Task, scorer: Scorer, engine: Engine, prompter: Prompter, sampling: Sampling,
                 prompts: int, samples: int, seed: int, on_failure: str) -> None:
        self.task, self.scorer, self.engine, self.prompter = task, scorer, engine, prompter
        self.sampling, self.prompts, self.samples = sampling, prompts, samples
        self.seed, self.on_failure = seed, on_failure

    def next(self, step: int) -> Rollout:
        """Sample and score the batch of this step (from 0), with weights that have seen `step` updates.

        Raises:
            PosttrainError: if a verifier failed and the run was told to stop then.
        """
        problems = [self.task.train(step * self.prompts + i, self.seed) for i in range(self.prompts)]
        ids = [self.prompter.encode(problem.prompt) for problem in problems]
        generator = torch.Generator().manual_seed(derive(self.seed, "rollout", step))
        out = self.engine.generate(ids, self.samples, self.sampling, generator)
        texts = [self.prompter.decode(row[:length]) for row, length in
                 zip(out.tokens.tolist(), out.lengths.tolist(), strict=True)]
        rows = [problem for problem in problems for _ in range(self.samples)]
        scored = self.scorer(rows, texts)
        return self._assemble(step, rows, ids, out, texts, scored)

    def _assemble(self, step: int, problems: list[Problem], ids: Sequence[Sequence[int]], out: Completions,
                  texts: list[str], scored: list[Scored]) -> Rollout:
        failures = [s.failure for s in scored if s.failure is not None]
        if failures and self.on_failure == "stop":
            raise PosttrainError(f"step {step + 1}: the verifier failed on {len(failures)} of {len(scored)} "
                                 f"completions, first: {failures[0]} (on_reward_failure = 'stop')")
        kept = [i for i, s in enumerate(scored) if s.failure is None or self.on_failure == "zero"]
        rows = torch.tensor(kept, dtype=torch.long)
        group = torch.arange(len(ids)).repeat_interleave(self.samples)
        width = max(1, int(out.lengths.max()))
        tokens, logp = out.tokens[:, :width], out.logp[:, :width]
        mask = torch.arange(width) < out.lengths[:, None]
        payload = Sequences(tuple(map(tuple, ids)), group, tokens, out.lengths, self.sampling.temperature)
        reward = torch.tensor([0.0 if s.value is None else s.value for s in scored])
        batch = Groups(payload=payload, mask=mask, unit=group, version=torch.full(mask.shape, step),
                       logp_behaviour=logp, reward=reward, finished=out.finished,
                       limit=self.sampling.max_new_tokens,
                       extra={"answer": answer_ids(texts, group), "token": tokens,
                              "given": torch.zeros(len(group), dtype=torch.bool)}).take(rows)
        prompts = [self.prompter.show(problems[i].prompt) for i in kept]
        return Rollout(batch, prompts, [texts[i] for i in kept], failures, len(scored) - len(kept))
