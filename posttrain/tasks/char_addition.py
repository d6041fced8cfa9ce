"""char-addition: the digits of a + b, least significant first, for models that read single characters.

"37+85=" asks for "221", the digits of 122 from the right, as a sum is worked by hand: every digit then follows from
two digits of the prompt and one carry.  A tenth of the 8,100 pairs of two-digit numbers, chosen by a hash, is held out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from posttrain.core.errors import UserError
from posttrain.tasks.split import Split, draws
from posttrain.tasks.task import Problem, Task

HELDOUT_SHARE = 0.1
NUMBERS = range(10, 100)  # of two digits, both a and b
LONGEST = 5  # tokens: three digits, the end, and one in which a wrong answer may go on


def task(argument: str) -> Task:
    if argument:
        raise UserError(f"task = 'char-addition-{argument}': char-addition takes no argument")
    return CharAddition()


@dataclass(frozen=True)
class CharAddition:
    """Sums of two numbers of two digits."""

    name: str = "char-addition"
    trusted: bool = True
    defaults: Mapping[str, Any] = field(default_factory=lambda: {"max_new_tokens": LONGEST})

    def train(self, index: int, seed: int) -> Problem:
        return _SPLIT.first_for_training(draws(_draw, f"char-addition/train/{seed}/{index}"), self.name)

    def heldout(self, count: int) -> list[Problem]:
        every = [problem_of(a, b) for a in NUMBERS for b in NUMBERS]
        Random("char-addition/heldout").shuffle(every)
        return _SPLIT.distinct_heldout(every, count, len(every))

    def score(self, problem: Problem, completion: str) -> float:
        """1.0 when the completion is the answer's digits and nothing else but space around them."""
        return float(completion.strip() == problem.answer)


def problem_of(a: int, b: int) -> Problem:
    return Problem(f"{a}+{b}=", str(a + b)[::-1], {"a": a, "b": b})


def _draw(rng: Random) -> Problem:
    return problem_of(rng.choice(NUMBERS), rng.choice(NUMBERS))


_SPLIT = Split(HELDOUT_SHARE, lambda problem: str(problem.prompt))
