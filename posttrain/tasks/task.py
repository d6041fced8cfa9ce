"""What a task is: problems to train on, others held out, and a score for a completion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from posttrain.rewards.verifiers import as_completion

Prompt = str | tuple[dict[str, str], ...]


class Given(NamedTuple):
    """An answer that somebody wrote, and what it is worth."""

    text: str
    reward: float  # in [0, 1]
    process: float | None = None  # in [0, 1], what a scorer of steps says of it


@dataclass(frozen=True)
class Problem:
    """One prompt, what its score needs, and answers to learn from.  `answer` and `data` are plain JSON data."""

    prompt: Prompt        # the user's text, or a whole chat; the policy applies its chat template
    answer: Any           # None where answers are given and nothing scores others
    data: Mapping[str, Any] = field(default_factory=dict)
    completions: tuple[Given, ...] = ()
    part: str = ""        # which part of its task it belongs to, where the task has parts


class Task(Protocol):
    """A source of problems that can score completions.  Picklable; imports no torch.

    A task may also have `gold(problem) -> str`, a completion worth full marks; `process(problem, completion) -> float`
    in [0, 1], what a scorer of steps says; `parts`, tasks by name that its problems come from; `size`, how many
    training problems there are before they repeat; and `scored`, False where it cannot score completions.  The
    functions below read them.
    """

    @property
    def name(self) -> str:
        """As the user typed it."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """What this task suggests where the user says nothing, e.g. {"max_new_tokens": 24}."""

    @property
    def trusted(self) -> bool:
        """True: the scorer is ours, quick, and runs in the main process.  False: in a bounded worker."""

    def train(self, index: int, seed: int) -> Problem:
        """Training problem number `index` ≥ 0 of a run: a pure function of both, in every process."""

    def heldout(self, count: int) -> list[Problem]:
        """The first `count` held-out problems; fewer when the task has no more.

        Always the same, all distinct, and none of them ever in `train`.
        """

    def score(self, problem: Problem, completion: str) -> float:
        """The worth of a completion, in [0, 1]."""


def prompt_key(prompt: Prompt) -> str:
    """A text that two prompts share exactly when they are the same."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)


def gold(task: Any, problem: Problem) -> str:
    """A completion that deserves full marks: what the task says, else the text of the answer."""
    told = getattr(task, "gold", None)
    return str(told(problem)) if told else as_completion(problem.answer)


def can_score(task: Any) -> bool:
    """Whether the task can say what a completion is worth; a file of given answers may come without a verifier."""
    return bool(getattr(task, "scored", True))


def parts_of(task: Any) -> Mapping[str, Task]:
    """The tasks that this one is made of, by name; itself alone where it has no parts."""
    found: Mapping[str, Task] = getattr(task, "parts", {})
    return found or {task.name: task}


def size_of(task: Any) -> int | None:
    """How many training problems there are before they repeat; None: no end is known."""
    size: int | None = getattr(task, "size", None)
    return size
