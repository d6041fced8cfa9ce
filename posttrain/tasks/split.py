"""Divide problems into training and held-out ones by a hash, so that no problem is ever on both sides.

The side of a problem depends on its key alone: not on the order, the seed, the process or what else was
drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random

from posttrain.core.errors import UserError
from posttrain.tasks.task import Problem, prompt_key

PATIENCE = 2000  # problems drawn in vain before a generator counts as exhausted


def draws(make: Callable[[Random], Problem], stream: str) -> Iterator[Problem]:
    """Problems without end, made one after another from the generator that `stream` seeds."""
    rng = Random(stream)
    while True:
        yield make(rng)


def fraction(key: str) -> float:
    """A number in [0, 1), uniform over keys and the same in every process."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


@dataclass(frozen=True)
class Split:
    """Holds out the problems whose key falls below `share`, a number in (0, 1)."""

    share: float
    key: Callable[[Problem], str]

    def holds_out(self, problem: Problem) -> bool:
        return fraction(self.key(problem)) < self.share

    def first_for_training(self, candidates: Iterable[Problem], name: str) -> Problem:
        """The first candidate that is not held out.

        Raises:
            UserError: there is none among the first `PATIENCE`; `name` is the task's.
        """
        for _, problem in zip(range(PATIENCE), candidates, strict=False):
            if not self.holds_out(problem):
                return problem
        raise UserError(f"task = {name!r}: makes too few distinct problems; "
                        f"all of {PATIENCE} drawn for training are held out")

    def distinct_heldout(self, candidates: Iterable[Problem], count: int,
                         patience: int = PATIENCE) -> list[Problem]:
        """The first `count` different held-out candidates.

        Fewer once `patience` candidates in a row brought nothing new.
        """
        found: dict[str, Problem] = {}
        in_vain = 0
        for problem in candidates:
            if len(found) >= count or in_vain >= patience:
                break
            prompt = prompt_key(problem.prompt)
            new = self.holds_out(problem) and prompt not in found
            in_vain = 0 if new else in_vain + 1
            if new:
                found[prompt] = problem
        return list(found.values())
