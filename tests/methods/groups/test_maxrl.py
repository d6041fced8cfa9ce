"""MaxRL's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import itertools

import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.maxrl import MaxRL


def test_divides_by_the_mean() -> None:
    # One right of four: (1 − ¼) / ¼ = 3 and −1.  Two of four: 1 and −1.  None, or all: nothing.
    reward = [1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    batch = table_groups(reward, [[1]] * 16, group=[0] * 4 + [1] * 4 + [2] * 4 + [3] * 4)
    _, prepared, gradient = learn(MaxRL(), batch, torch.zeros(16, 1).double())
    close(prepared.credit[:, 0], [3, -1, -1, -1, 1, 1, -1, -1] + [0] * 8)
    assert (gradient[8:] == 0).all()


def test_is_the_mean_of_the_right_less_the_mean_of_all() -> None:
    # Two right of four: 1/2 − 1/4 on each token of the right ones and 0 − 1/4 on the others', not divided by length.
    batch = table_groups([1, 0, 1, 0], [[1, 1], [1, 0], [1, 0], [1, 1]])
    _, _, gradient = learn(MaxRL(), batch, torch.zeros(4, 2).double())
    close(gradient, [[-0.25, -0.25], [0.25, 0], [-0.25, 0], [0.25, 0.25]])


def test_expectation_is_the_likelihood_s_series_cut_at_n_minus_1() -> None:
    # All eight outcomes of three fair draws.  d log p / dp = Σ_k (1 − p)^(k − 1); its first two terms are 1 + ½.
    # By hand: one right, Â = 2, −1, −1 and scores 2, −2, −2: 8/3; two right, ½, ½, −1: 4/3; (3 · 8/3 + 3 · 4/3) / 8.
    outcomes = f64(list(itertools.product([0, 1], repeat=3))).flatten()
    group = [g for g in range(8) for _ in range(3)]
    batch = table_groups(outcomes.tolist(), [[1]] * 24, group=group)
    _, _, gradient = learn(MaxRL(), batch, ln([[0.5]] * 24))
    score = 2 * (2 * outcomes - 1)  # d log p / dp = 1 / p, d log(1 − p) / dp = −1 / (1 − p)
    close(-(gradient[:, 0] * score).sum(), 1.5)
