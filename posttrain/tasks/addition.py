"""addition: "What is A + B?" with A and B in 1..20; addition-N has them in 1..N.

The ordered pairs are divided by a hash, a quarter of them held out; b + a may be trained on where a + b is not.  A
split by a rule such as (a + b) mod k would hold out whole answers, and the held-out score would measure something
else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from posttrain.core.errors import UserError
from posttrain.rewards.verifiers import number
from posttrain.tasks.split import Split, draws, fraction
from posttrain.tasks.task import Problem, Task

HELDOUT_SHARE = 0.25
LARGEST = 10**6


def task(argument: str) -> Task:
    """`argument` is the largest number, "" for 20.

    Raises:
        UserError: it is not a whole number in 2..1,000,000.
    """
    if not argument:
        return Addition("addition", 20)
    if not (argument.isascii() and argument.isdigit() and 2 <= int(argument[:9]) <= LARGEST):
        raise UserError(f"task = 'addition-{argument}': N must be a whole number from 2 to {LARGEST}")
    return Addition(f"addition-{argument}", int(argument))


@dataclass(frozen=True)
class Addition:
    """Sums of two numbers from 1 to `largest`."""

    name: str
    largest: int
    trusted: bool = True
    defaults: Mapping[str, Any] = field(default_factory=lambda: {"max_new_tokens": 24})

    def train(self, index: int, seed: int) -> Problem:
        drawn = draws(self._draw, f"addition/{self.largest}/train/{seed}/{index}")
        return self._split.first_for_training(drawn, self.name)

    def heldout(self, count: int) -> list[Problem]:
        # 20 draws per pair miss one pair with probability e^-20.
        patience = min(20 * self.largest**2, 100_000)
        drawn = draws(self._draw, f"addition/{self.largest}/heldout")
        return self._split.distinct_heldout(drawn, count, patience)

    def score(self, problem: Problem, completion: str) -> float:
        """1.0 when the last number of the completion is the sum; see the verifier `number`."""
        return number.verify(completion, problem.answer)

    def _draw(self, rng: Random) -> Problem:
        a, b = rng.randint(1, self.largest), rng.randint(1, self.largest)
        return Problem(f"What is {a} + {b}? Answer with just the number.", a + b, {"a": a, "b": b})

    @property
    def _split(self) -> Split:
        return Split(_share(self.largest), _pair)


def _pair(problem: Problem) -> str:
    return f"{problem.data['a']}+{problem.data['b']}"


@functools.cache
def _share(largest: int) -> float:
    """The share held out: a quarter, raised where so small a grid would hold out no pair at all."""
    if largest > 20:
        return HELDOUT_SHARE
    numbers = range(1, largest + 1)
    smallest = min(fraction(f"{a}+{b}") for a in numbers for b in numbers)
    return max(HELDOUT_SHARE, math.nextafter(smallest, 1.0))
