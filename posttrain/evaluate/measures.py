"""What a held-out evaluation may report, each as one score a problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.evaluate.intervals import difference_interval, interval, paired_interval

MEASURES = (
    "accuracy",  # what the verifier says of the likeliest completion
    "preference_accuracy",  # the share of a problem's given pairs whose better answer is the likelier one
    "answer_likelihood",  # the geometric mean of the probabilities of a given answer's tokens
    "return",  # the sum of an episode's rewards, each action the likeliest
    "picture_reward",  # what the task says of a picture that the deterministic sampler makes
)
SHARES = MEASURES[:3]  # in [0, 1], of the same problems at every evaluation
UNITS = {"return": "episode", "picture_reward": "picture"}  # what a score is of, where it is no share


def measure_of(results: Mapping[str, Any]) -> str:
    """The one of MEASURES that an evaluation reports; empty where it has none."""
    return next((name for name in MEASURES if name in results), "")


def gain_interval(measure: str, before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """95% interval of how much better the second evaluation is than the first."""
    return paired_interval(before, after) if measure in SHARES else difference_interval(before, after)


@dataclass(frozen=True)
class Measured:
    """scores: one per problem, in [0, 1]; a verifier that failed counts as 0 and is counted in `failures`."""

    scores: tuple[float, ...]
    failures: int
    name: str = "accuracy"  # one of MEASURES

    @property
    def mean(self) -> float:
        return sum(self.scores) / max(1, len(self.scores))

    @property
    def interval(self) -> tuple[float, float]:
        return interval(self.scores)
