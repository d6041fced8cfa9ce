"""SALSA's soup, on tables of log-probabilities, and PPO where there is nothing to stir."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from toy import Learner, TableCritic, TablePolicy, table_groups
from worked import close, ln

from posttrain.core.errors import UserError
from posttrain.methods.actor_critic.ppo import PPO
from posttrain.methods.actor_critic.salsa import SALSA

MASK = [[1, 1], [1, 0]]
POLICY, FIRST, SECOND = ln([[0.8, 0.8], [0.5, 1]]), ln([[0.4, 0.1], [0.5, 1]]), ln([[0.1, 0.4], [0.5, 1]])


def learner(method: PPO, **networks: Any) -> Learner:
    return Learner(method, TablePolicy(POLICY), critic=TableCritic(torch.zeros(2, 2, dtype=torch.float64)), **networks)


def test_penalty_is_held_against_the_average_of_the_weights() -> None:
    # The weights here are log-probabilities: ¾ ln 0.4 + ¼ ln 0.1 = ln 0.4 − ½ ln 2, and ln 0.1 + ½ ln 2.  With β = 1,
    # λ = 1, r = 0 the penalties are ln 2 + ½ ln 2 and 3 ln 2 − ½ ln 2, so the targets are −4 ln 2 and −5/2 ln 2.
    method = SALSA(epochs=1, kl_coef=1, decay=1, share=0.75)
    made = learner(method, anchor=TablePolicy(FIRST), teacher=TablePolicy(SECOND))
    for step in (0, 1):  # stirred once, however many batches
        prepared = made.update(table_groups([0, 0], MASK), step, lr=1e-30)
        close(prepared.extra["value_target"], [[-4 * math.log(2), -2.5 * math.log(2)], [0, 0]])
    close(made.models.teacher.table.detach(), SECOND)


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_one_ingredient_is_ppo_with_that_reference(share: float) -> None:
    found = learner(SALSA(share=share), anchor=TablePolicy(FIRST), teacher=TablePolicy(SECOND))
    expected = learner(PPO(), reference=TablePolicy(FIRST if share else SECOND))
    for made in (found, expected):
        made.update(table_groups([1, 0], MASK))
    close(found.weights, expected.weights)


def test_another_architecture_is_refused() -> None:
    made = learner(SALSA(), anchor=TablePolicy(FIRST), teacher=TablePolicy(SECOND[:, :1]))
    with pytest.raises(UserError, match="teacher: has another architecture"):
        made.update(table_groups([1, 0], MASK))
