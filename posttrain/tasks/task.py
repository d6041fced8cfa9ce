"""What a task is: problems to train on, others held out, and a score for a completion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Prompt = str | tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Problem:
    """One prompt and what its score needs.  `answer` and `data` are plain JSON data."""

    prompt: Prompt        # the user's text, or a whole chat; the policy applies its chat template
    answer: Any
    data: Mapping[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """A source of problems that can score completions.  Picklable; imports no torch."""

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
