"""What a policy makes of held-out answers that somebody gave, where nothing can score its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from posttrain.core.curriculum import Outcome
from posttrain.data.problems import Pick
from posttrain.evaluate.measures import Measured
from posttrain.policies.load import LanguageModel
from posttrain.rollout.engine import Sampling
from posttrain.rollout.given import GivenSource
from posttrain.tasks.task import Problem, Task


class Listed:
    """These problems, all at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.picks, self.state = [Pick(problem, 0) for problem in problems], dict[str, Any]()

    def take(self, step: int, attempt: int = 0) -> list[Pick]:
        return self.picks

    def learn(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """Nothing to learn."""
        return {}


def given_measure(model: LanguageModel, task: Task, problems: Sequence[Problem], max_new_tokens: int) -> Measured:
    """Preference accuracy where answers differ in worth, else how likely the given answers are.

    preference_accuracy: of each problem, the share of its pairs r_i > r_j with log π(y_i) > log π(y_j).
    answer_likelihood: of each problem, the mean over its answers of exp(1/|y| Σ_t log π(y_t)).
    """
    ranked = [p for p in problems if len({given.reward for given in p.completions}) > 1]
    sampling = Sampling(max_new_tokens=max_new_tokens, stop_tokens=model.stop_tokens)
    batch = GivenSource(task, Listed(ranked or problems), model.prompter, sampling).next(0).batch
    with torch.no_grad():
        logp = model.policy.log_prob(batch)  # [B, T]
    if not ranked:
        likely = batch.mean_per_row(logp).exp()
        return Measured(tuple(float(likely[rows].mean()) for rows in _units(batch.unit)), 0, "answer_likelihood")
    total = torch.where(batch.mask, logp, 0.0).sum(1)
    shares = []
    for rows in _units(batch.unit):
        better = batch.reward[rows][:, None] > batch.reward[rows]  # [R, R]
        right = total[rows][:, None] > total[rows]
        shares.append(int((better & right).sum()) / int(better.sum()))
    return Measured(tuple(shares), 0, "preference_accuracy")


def _units(unit: Tensor) -> list[Tensor]:
    return [(unit == u).nonzero()[:, 0] for u in unit.unique()]
