"""B²-DiffuRL's closed forms, worked by hand, through the real loop, and what its source draws."""

from __future__ import annotations

import math
from typing import Any

import torch
from picture_toy import toy_policy
from toy import table_groups
from worked import close, f64, learn

from posttrain.methods.groups.b2_diffurl import B2DiffuRL
from posttrain.rollout.pictures import PictureSource


def test_only_the_best_and_the_worst_are_learnt() -> None:
    # Rewards 0, 1, 2: mean 1, deviation 1, z = −1, 0, 1.  The middle one is left out; dL/dlog π = −½ z.
    _, prepared, gradient = learn(B2DiffuRL(), table_groups([0, 1, 2], [[1]] * 3), f64([[0]] * 3))
    close(prepared.extra["kept"], [1, 0, 1])
    z = 1 / (1 + 1e-8)
    close(gradient, [[z / 2], [0], [-z / 2]])


def test_a_best_that_is_not_good_enough_is_left_out() -> None:
    # Rewards 0, 1, 1, 1: z of the bests is ¼/½ = 0.5/(1 + 2e-8), just below τ = ½, of the worst −1.5.
    _, prepared, gradient = learn(B2DiffuRL(), table_groups([0, 1, 1, 1], [[1]] * 4), f64([[0]] * 4))
    close(prepared.extra["kept"], [1, 0, 0, 0])
    close(gradient[0], [0.75 / (0.5 + 1e-8)])
    _, prepared, _ = learn(B2DiffuRL(threshold=0.4), table_groups([0, 1, 1, 1], [[1]] * 4), f64([[0]] * 4))
    close(prepared.extra["kept"], [1, 1 / 3, 1 / 3, 1 / 3])  # equals share


def test_clips() -> None:
    # Rewards 0 and 2: z = ∓a, a = 1/(√2 + 1e-8).  Ratio 3 on both, ε = 0.1: gains −3a and 1.1a, L = 0.95 a.
    batch = table_groups([0, 2], [[1]] * 2, logp_old=f64([[0]] * 2))
    metrics, _, gradient = learn(B2DiffuRL(), batch, f64([[math.log(3)]] * 2))
    a = 1 / (math.sqrt(2) + 1e-8)
    close(metrics["loss/policy"], 0.95 * a)
    close(gradient, [[1.5 * a], [0]])


def test_the_interval_grows_and_all_before_it_is_shared() -> None:
    # Four steps, half of them at first, over 9 batches: 2 + n · 3 // 9 last steps.
    policy = toy_policy(dtype=torch.float32)
    source = PictureSource(policy, lambda picture, label: picture.mean(1), 2, 3, 0, interval=0.5, total=9)
    for number, expected in ((0, 2), (2, 2), (3, 3), (5, 3), (6, 4), (8, 4)):
        batch = source.next(number)
        told: Any = batch.payload
        assert batch.mask.tolist() == [[k >= 4 - expected for k in range(4)]] * 6
        for unit in (0, 1):
            state = told.state[batch.unit == unit]
            branch = 4 - expected
            shared = state[:1, :branch + 1].expand(3, -1, -1)  # which rows of one product say to rounding
            torch.testing.assert_close(state[:, :branch + 1], shared, rtol=0, atol=1e-6)
            assert expected == 1 or not torch.equal(state[0, -1], state[1, -1])
