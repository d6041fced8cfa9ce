"""A task from a user's function: given a `random.Random`, it returns a dict with prompt and answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from posttrain.core.errors import PosttrainError, UserError
from posttrain.rewards.functions import absolute, load_function
from posttrain.rewards.verifiers import Verifier, load_verifier
from posttrain.tasks.split import Split, draws
from posttrain.tasks.task import Problem, prompt_key
from posttrain.tasks.user.problems import problem_from, verifier_missing

HELDOUT_SHARE = 0.2


@dataclass(frozen=True)
class FunctionTask:
    """Problems made by a function.  Held-out ones come from a stream and a side of the hash of their own."""

    name: str
    spec: str               # the import path, files made absolute
    verifier: Verifier | None  # None: answers are given, and others cannot be scored
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trusted(self) -> bool:
        return self.verifier is None or self.verifier.trusted

    @property
    def scored(self) -> bool:
        return self.verifier is not None

    def train(self, index: int, seed: int) -> Problem:
        return _SPLIT.first_for_training(draws(self._draw, f"train/{seed}/{index}"), self.name)

    def heldout(self, count: int) -> list[Problem]:
        return _SPLIT.distinct_heldout(draws(self._draw, "heldout"), count)

    def score(self, problem: Problem, completion: str) -> float:
        """What the verifier says; whoever calls this holds it to [0, 1]."""
        assert self.verifier is not None, self.name
        result: float = self.verifier(completion, problem.answer, problem.data)
        return result

    def _draw(self, rng: Random) -> Problem:
        make = load_function(self.spec, "task")
        try:
            row = make(rng)
        except Exception as error:
            raise PosttrainError(f"task {self.name!r} raised {type(error).__name__}: {error}") from error
        return problem_from(row, f"task {self.name!r}", scored=self.verifier is not None)


def load(name: str, verifier: str | None) -> FunctionTask:
    """Check that the function makes problems, the same from the same generator, and enough different ones.

    Raises:
        UserError: the function or the verifier cannot be used.
    """
    task = FunctionTask(name, absolute(name), None if verifier is None else load_verifier(verifier))
    if task._draw(Random("check")) != task._draw(Random("check")):
        raise UserError(f"task = {name!r}: gave two different problems for the same random.Random; "
                        "it must draw from that alone")
    first = task.train(0, 0)
    if task.verifier is None and not first.completions:
        raise verifier_missing(name)
    missing = [key for key in (task.verifier.required if task.verifier else ()) if key not in first.data]
    if missing:
        raise UserError(f"task = {name!r}: gives no key {missing[0]!r}, which the verifier asks for")
    if not task.heldout(1):
        raise UserError(f"task = {name!r}: makes too few distinct problems to hold any out")
    return task


_SPLIT = Split(HELDOUT_SHARE, lambda problem: prompt_key(problem.prompt))
