"""MinPRO's weights, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups, Method
from posttrain.methods.groups.grpo import GRPO
from posttrain.methods.groups.minpro import MinPRO

# Rewards 0 and 1: mean 1/2, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: Method[Any], batch: Groups, logp: Tensor) -> tuple[Learner, Tensor]:
    """The learner after one update, and the gradient with respect to log π, [B, T]."""
    learner = Learner(method, TablePolicy(logp))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


def test_weights() -> None:
    # With a clip that never acts the gradient is −½ · ⅓ w Â.
    #   ρ = 2, ½, 3: w = 2, ½ · 2 = 1, 3 · min(2, ½) = 1.5
    #   ρ = ½, 4, 1: w = ½, 4 · ½ = 2, 1 · min(½, 4) = ½
    # The product would give 2, 1, 3 and ½, 2, 2: the same up to the second token.
    logp = f64([[2, 0.5, 3], [0.5, 4, 1]]).log()
    batch = table_groups([0, 1], [[1, 1, 1]] * 2, logp_old=torch.zeros_like(logp))
    _, gradient = run(MinPRO(clip_low=1, clip_high=100), batch, logp)
    assert_close(gradient, A / 6 * f64([[2, 1, 1.5], [-0.5, -2, -0.5]]))


def test_the_smallest_earlier_ratio_has_no_gradient() -> None:
    # Only the last token of Â = +A is not clipped: w = 3, 0.9 · 3 = 2.7, 1.5 · 0.9 = 1.35 and ε_high = 0.4.
    logp = f64([[1, 1, 1], [3, 0.9, 1.5]]).log()
    batch = table_groups([0, 1], [[1, 1, 1]] * 2, logp_old=torch.zeros_like(logp))
    learner, gradient = run(MinPRO(clip_high=0.4), batch, logp)
    assert_close(gradient, A / 6 * f64([[1, 1, 1], [0, 0, -1.35]]))
    assert learner.metrics["clipped"] == pytest.approx(2 / 6)


def test_steps_over_a_tool_token() -> None:
    # The hole would have ρ = e^-9; the last token sees only the first one: w = 1.1 · 0.9.
    logp = f64([[0, 0, 0], [math.log(0.9), -9, math.log(1.1)]])
    batch = table_groups([0, 1], [[1, 0, 1]] * 2, logp_old=torch.zeros_like(logp))
    _, gradient = run(MinPRO(), batch, logp)
    assert_close(gradient, A / 4 * f64([[1, 0, 1], [-0.9, 0, -0.99]]))


def test_one_token_is_grpos() -> None:
    logp = f64([[0.5], [1.5], [0.9], [1.1]]).log()
    batch = table_groups([0, 1, 1, 0], [[1]] * 4, logp_old=torch.zeros_like(logp))
    assert_close(run(MinPRO(), batch, logp)[1], run(GRPO(kl_coef=0), batch, logp)[1])


def test_first_gradient_is_grpos() -> None:
    batch, logp = table_groups([0, 1], [[1, 1, 0], [1, 1, 1]]), torch.zeros(2, 3).double()
    assert_close(run(MinPRO(), batch, logp)[1], run(GRPO(kl_coef=0), batch, logp)[1])
