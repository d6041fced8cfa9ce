"""REINFORCE's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, learn, ln

from posttrain.methods.groups.reinforce import Reinforce


def test_a_completion_weighs_by_its_reward_and_not_by_its_length() -> None:
    # Rewards 2 and −1; one token of probability 1/2, three of 1/4:
    # L = −½ [ 2 · log ½ − 1 · 3 log ¼ ] = −½ [ −2 + 6 ] log 2 = −2 log 2.   dL/dlog π = −½ r_i on every own token.
    batch = table_groups([2, -1], [[1, 0, 0], [1, 1, 1]])
    metrics, _, gradient = learn(Reinforce(), batch, ln([[0.5, 1, 1], [0.25, 0.25, 0.25]]))
    close(metrics["loss/policy"], -2 * math.log(2))
    close(gradient, [[-1, 0, 0], [0.5, 0.5, 0.5]])


def test_tokens_of_others_are_not_learnt() -> None:
    batch = table_groups([3], [[1, 0, 1]])
    _, _, gradient = learn(Reinforce(), batch, ln([[0.5, 0.5, 0.5]]))
    close(gradient, [[-3, 0, -3]])


def test_is_the_gradient_of_the_expected_reward() -> None:
    # Two actions with p = 0.3 and 0.7 and rewards 5 and 1, in those very proportions: 3 rows and 7.
    # d E[r] / dθ for log-odds θ is p (1 − p) (5 − 1) = 0.84;   d log p / dθ = 0.7,  d log(1 − p) / dθ = −0.3.
    batch = table_groups([5.0] * 3 + [1.0] * 7, [[1]] * 10)
    _, _, gradient = learn(Reinforce(), batch, ln([[0.3]] * 3 + [[0.7]] * 7))
    score = torch.tensor([0.7] * 3 + [-0.3] * 7, dtype=torch.float64)
    close(-(gradient[:, 0] * score).sum(), 0.84)
