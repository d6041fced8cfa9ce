"""MDPO's mirror-descent step, worked by hand."""

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
from posttrain.methods.groups.mdpo import MDPO

# Rewards 0 and 1: mean 1/2, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: Method[Any], batch: Groups, logp: Tensor) -> tuple[Learner, Tensor]:
    """The learner after one update, and the gradient with respect to log π, [B, T]."""
    learner = Learner(method, TablePolicy(logp))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


def test_rests_where_the_mirror_descent_step_ends() -> None:
    # d/dlog π of −ρ Â + (ρ log ρ − ρ + 1) / t is ρ (−Â + log ρ / t): 0 at log ρ = t Â.  t = 1 for the first batch.
    logp = f64([[-A, -A], [A, A]])
    batch = table_groups([0, 1], [[1, 1]] * 2, logp_old=torch.zeros_like(logp))
    _, gradient = run(MDPO(epochs=1), batch, logp)
    assert_close(gradient, torch.zeros_like(logp), atol=1e-12, rtol=0)


def test_many_steps_reach_it() -> None:
    # AdamW moves a number by about its rate: 400 steps of 0.01, then a few hundred to settle within 0.01.
    logp = torch.zeros(2, 1).double()
    learner = Learner(MDPO(epochs=800), TablePolicy(logp))
    learner.update(table_groups([0, 1], [[1], [1]]), lr=2e-3)
    assert_close(learner.weights.double(), f64([[-A, A]])[0], atol=2e-2, rtol=0)


def test_step_size_shrinks_to_its_last() -> None:
    # K = 4: 1, ¾, ½, ¼ and then ¼ for good.  At ρ = 2 and equal rewards L = (2 log 2 − 1) / t.
    logp = f64([[math.log(2)]])
    learner = Learner(MDPO(epochs=1, horizon=4), TablePolicy(logp))
    for t in (1, 0.75, 0.5, 0.25, 0.25):
        learner.update(table_groups([1], [[1]], logp_old=torch.zeros_like(logp)), lr=0.0)
        assert learner.models.state["step_size"] == t
        assert learner.metrics["loss/kl"] == pytest.approx((2 * math.log(2) - 1) / t)


def test_first_gradient_is_the_policy_gradient() -> None:
    batch, logp = table_groups([0, 1], [[1, 1], [1, 1]]), torch.zeros(2, 2).double()
    assert_close(run(MDPO(epochs=1), batch, logp)[1], run(GRPO(kl_coef=0), batch, logp)[1])
