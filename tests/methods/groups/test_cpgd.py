"""CPGD's clipped log-ratio and bounded drift, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups, Method
from posttrain.methods.groups.cpgd import CPGD
from posttrain.methods.groups.grpo import GRPO

# Rewards 0 and 1: mean 1/2, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: Method[Any], batch: Groups, logp: Tensor) -> tuple[Learner, Tensor]:
    """The learner after one update, and the gradient with respect to log π, [B, T]."""
    learner = Learner(method, TablePolicy(logp))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


def test_first_gradient_is_grpos() -> None:
    batch, logp = table_groups([0, 1], [[1, 1, 0], [1, 1, 1]]), torch.zeros(2, 3).double()
    assert_close(run(CPGD(), batch, logp)[1], run(GRPO(kl_coef=0), batch, logp)[1])


def test_a_token_weighs_its_advantage_or_nothing() -> None:
    # The band is [log 0.8, log 1.2].
    #   Â = −A, ratios ½, 1, 1.5: −A log ½ against −A log 0.8 (smaller: clipped), 0, −A log 1.5 (smaller: kept)
    #   Â = +A, ratios ½, 1.5:    A log ½ (smaller: kept), A log 1.5 against A log 1.2 (clipped)
    # L = −½ [ (log 1.25 − log 1.5) / 3 + (log ½ + log 1.2) / 2 ] A.  What is kept has weight Â, not ρ Â.
    logp = f64([[0.5, 1.0, 1.5], [0.5, 1.5, 1.0]]).log()
    batch = table_groups([0, 1], [[1, 1, 1], [1, 1, 0]], logp_old=torch.zeros_like(logp))
    learner, gradient = run(CPGD(drift_coef=0), batch, logp)
    expected = -0.5 * (math.log(1.25 / 1.5) / 3 + math.log(0.5 * 1.2) / 2) * A
    assert learner.metrics["loss/policy"] == pytest.approx(expected, abs=1e-12)
    assert learner.metrics["clipped"] == pytest.approx(2 / 5)
    assert_close(gradient, f64([[0, A / 6, A / 6], [-A / 4, 0, 0]]))


def test_a_huge_ratio_does_not_weigh_more() -> None:
    # Â = −A, ratio e^5: GRPO pushes with weight e^5 A, CPGD with A.  Rows weigh ½.
    logp = f64([[5.0], [0.0]])
    batch = table_groups([0, 1], [[1], [1]], logp_old=torch.zeros_like(logp))
    assert_close(run(CPGD(drift_coef=0), batch, logp)[1][0, 0].item(), A / 2)
    assert_close(run(GRPO(kl_coef=0), batch, logp)[1][0, 0].item(), math.exp(5) * A / 2)


def test_drift() -> None:
    # Equal rewards leave α min(ρ − 1, c) ℓ with c = 1: ratios 1.5, ½ | 4, 1 weigh ½, −½ | 1 (of 3), 0.
    # L = 0.3 · ½ · ½ (½ log 1.5 − ½ log ½ + log 4);  every weight is divided by 2 rows and 2 tokens.
    logp = f64([[1.5, 0.5], [4.0, 1.0]]).log()
    batch = table_groups([1, 1], [[1, 1], [1, 1]], logp_old=torch.zeros_like(logp))
    learner, gradient = run(CPGD(drift_coef=0.3, drift_bound=1), batch, logp)
    assert learner.metrics["loss/drift"] == pytest.approx(0.3 / 4 * (0.5 * math.log(3) + math.log(4)))
    assert_close(gradient, 0.3 / 4 * f64([[0.5, -0.5], [1.0, 0.0]]))
