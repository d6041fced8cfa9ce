"""Several tasks as one: `--task addition,word-problems`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from posttrain.core.errors import UserError
from posttrain.tasks.task import Problem, Task, can_score, gold


@dataclass(frozen=True)
class Mixture:
    """Problems from its parts in turn; every problem names its own, which scores it."""

    name: str
    parts: Mapping[str, Task]

    def __post_init__(self) -> None:
        """
        Raises:
            UserError: where some parts can score completions and others cannot.
        """
        able = {name for name, task in self.parts.items() if can_score(task)}
        if able and len(able) < len(self.parts):
            lacking = next(name for name in self.parts if name not in able)
            raise UserError(f"verifier is missing: task {lacking!r} cannot score completions, and {min(able)!r} can")

    @property
    def scored(self) -> bool:
        return all(map(can_score, self.parts.values()))

    @property
    def trusted(self) -> bool:
        return all(task.trusted for task in self.parts.values())

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Of each option the largest that a part suggests, so that no answer is cut off."""
        found: dict[str, Any] = {}
        for task in self.parts.values():
            for option, value in task.defaults.items():
                found[option] = max(value, found.get(option, value))
        return found

    def train(self, index: int, seed: int) -> Problem:
        number, place = divmod(index, len(self.parts))
        name = list(self.parts)[place]
        return replace(self.parts[name].train(number, seed), part=name)

    def heldout(self, count: int) -> list[Problem]:
        """As many of each part as of the others, as far as they go; the first parts bear the remainder."""
        found = []
        for place, (name, task) in enumerate(self.parts.items()):
            share = (count + len(self.parts) - 1 - place) // len(self.parts)
            found += [replace(problem, part=name) for problem in task.heldout(share)]
        return found

    def score(self, problem: Problem, completion: str) -> float:
        return self.parts[problem.part].score(problem, completion)

    @property
    def process(self) -> Callable[[Problem, str], float] | None:
        """The parts' own scorers of steps; None where a part has none."""
        scorers = {name: getattr(task, "process", None) for name, task in self.parts.items()}
        return None if None in scorers.values() else self._process

    def _process(self, problem: Problem, completion: str) -> float:
        task: Any = self.parts[problem.part]
        return float(task.process(problem, completion))

    def gold(self, problem: Problem) -> str:
        return gold(self.parts[problem.part], problem)
