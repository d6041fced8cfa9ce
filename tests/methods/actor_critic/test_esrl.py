"""ESRL's choice of prompts; a TablePolicy chooses between two, so the likelier has max(p, 1 − p)."""

from __future__ import annotations

import math

import pytest
import torch
from toy import Learner, TableCritic, TablePolicy, language_learner, table_groups, toy_groups
from worked import close, f64, ln

from posttrain.core import Groups
from posttrain.methods.actor_critic.esrl import ESRL, peaks
from posttrain.methods.actor_critic.ppo import PPO

P = [[0.9, 0.5], [0.6, 0.6], [0.2, 0.3], [0.5, 0.5]]  # a prompt each
MASK = [[1, 0], [1, 1], [1, 1], [1, 1]]


def table(method: PPO) -> Learner:
    return Learner(method, TablePolicy(ln(P)), critic=TableCritic(torch.zeros(4, 2, dtype=torch.float64)))


def batch() -> Groups:
    return table_groups([1, 0, 0.5, 2], MASK, group=[3, 5, 8, 2])


def test_confidence_by_hand() -> None:
    # The likelier choices: 0.9; 0.6, 0.6; 0.8, 0.7; 0.5, 0.5.
    found = peaks(table(PPO(kl_coef=0)).models, batch())
    close(found, [1 + 0.9 * math.exp(0.9), 1 + 0.6 * math.exp(0.6),
                  1 + (0.8 * math.exp(0.8) + 0.7 * math.exp(0.7)) / 2, 1 + 0.5 * math.exp(0.5)])


@pytest.mark.parametrize(("drop", "stay"), [(0.0, [0, 1, 2, 3]), (0.2, [1, 2, 3]), (0.3, [1, 3]), (1.0, [3])])
def test_update_is_ppo_s_on_the_prompts_that_stay(drop: float, stay: list[int]) -> None:
    # Confidence falls in the order 0, 2, 1, 3; ⌈0.3 · 4⌉ = 2 prompts go.
    found, expected = table(ESRL(drop=drop, kl_coef=0)), table(PPO(kl_coef=0))
    prepared = found.update(batch())
    expected.update(batch().take(torch.tensor(stay)))
    close(found.gradient, expected.gradient)
    close(found.weights, expected.weights)
    assert prepared.mask.any(1).nonzero()[:, 0].tolist() == stay
    assert found.metrics["silent"] == 1 - len(stay) / 4


def test_a_prompt_s_answers_are_judged_together_and_ties_stay() -> None:
    # Answers of 0.9 and 0.5 make a prompt less sure than two of 0.8.  Of two prompts alike neither is to go.
    made = table_groups([1, 0, 1, 0], [[1]] * 4, group=[0, 0, 1, 1])

    def kept(p: list[float]) -> list[bool]:
        method = ESRL(drop=0.5, kl_coef=0)
        learner = Learner(method, TablePolicy(ln([[x] for x in p])), critic=TableCritic(f64([[0.0]] * 4)))
        return learner.update(made).mask[:, 0].tolist()

    assert kept([0.9, 0.5, 0.8, 0.8]) == [True, True, False, False]
    assert kept([0.9, 0.7, 0.7, 0.9]) == [True] * 4


def test_confidence_of_a_language_model_does_not_depend_on_the_split() -> None:
    whole, parts = (language_learner(ESRL(), budget).models for budget in (2048, 15))
    with torch.no_grad():
        close(peaks(parts, toy_groups()), peaks(whole, toy_groups()))
