"""Tasks and verifiers that misbehave in every way a user's can; imported by workers too."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from posttrain.tasks.task import Problem


def misbehave(completion: str, answer: Any) -> Any:
    """Do what the completion says."""
    match completion:
        case "hang":
            time.sleep(60)
        case "hang in C":
            return len(str(2 ** (10**8)))  # minutes without releasing the interpreter lock
        case "raise":
            raise ValueError("no\nsuch \x00 thing \ud800")
        case "exit":
            sys.exit(3)
        case "die":
            os._exit(7)
        case "die and leave a child":
            subprocess.Popen(["sleep", "60"])
            os._exit(7)
        case "modules":
            return float("torch" in sys.modules)
        case "print":
            print("noise")
    results = {"nan": math.nan, "inf": math.inf, "none": None, "text": "1", "two": 2, "minus": -0.1,
               "true": True, "half": 0.5, "list": [1]}
    return results.get(completion, 1.0 if completion == answer else 0.0)


@dataclass(frozen=True)
class Misbehaving:
    """A task whose score is `misbehave`."""

    trusted: bool
    name: str = "misbehaving"
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def train(self, index: int, seed: int) -> Problem:
        return Problem("say yes", "yes")

    def heldout(self, count: int) -> list[Problem]:
        return []

    def score(self, problem: Problem, completion: str) -> float:
        result: float = misbehave(completion, problem.answer)
        return result


class Stepwise(Misbehaving):
    """Scores steps too, by what the completion says twice over: "half half" is worth its whole, and ½ for its steps."""

    def score(self, problem: Problem, completion: str) -> float:
        return float(completion.startswith("half"))

    def process(self, problem: Problem, completion: str) -> float:
        result: float = misbehave(completion.partition(" ")[2], problem.answer)
        return result


class Unimportable(Misbehaving):
    """Pickles well, and fails in the worker."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _fail, ()


def _fail() -> Any:
    raise RuntimeError("no weights here")
