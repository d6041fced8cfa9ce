"""Clip-Cov's covariances and what they withhold, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups, Method
from posttrain.methods.groups.clip_cov import ClipCov

# Rewards 0 and 1: mean 1/2, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: Method[Any], batch: Groups, logp: Tensor) -> tuple[Learner, Tensor]:
    """The learner after one update, and the gradient with respect to log π, [B, T]."""
    learner = Learner(method, TablePolicy(logp))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


# Â = ∓A with A = 0.70701, mean 0; log π with mean −2.
#   c = −A (−4 + 2) = 2A = 1.414, −A · 0 = 0 | A (−1 + 2) = A, A: only the first lies in (1, 5).
LOGP = f64([[-4, -2], [-1, -1]])


@pytest.mark.parametrize(("share", "kept"), [(0.0, 1.0), (0.1, 0.6), (0.25, 0.0), (1.0, 0.0)])
def test_withholds_its_share_of_tokens(share: float, kept: float) -> None:
    # r N = 0, 0.4, 1 and 4 tokens out of n = 1.  At ratio 1 the gradient is −¼ w Â.
    learner, gradient = run(ClipCov(share=share), table_groups([0, 1], [[1, 1], [1, 1]]), LOGP)
    assert_close(gradient, A / 4 * f64([[kept, 1], [-1, -1]]))
    assert learner.metrics["withheld"] == pytest.approx((1 - kept) / 4)


def test_covariance_is_of_the_advantage_whatever_the_token_count() -> None:
    # The same batch fifty times: means, covariances, r N / n and so the weights stay, and the gradient is shared out.
    # Advantages divided by the token count beforehand would leave nothing above l = 1.
    many = table_groups([0, 1] * 50, [[1, 1]] * 100, group=[row // 2 for row in range(100)])
    learner, gradient = run(ClipCov(share=0.1), many, LOGP.repeat(50, 1))
    assert_close(gradient, (A / 200 * f64([[0.6, 1], [-1, -1]])).repeat(50, 1))
    assert learner.metrics["withheld"] == pytest.approx(0.1)


def test_bounds_are_absolute() -> None:
    # With l = ½ the tokens at A = 0.707 are candidates as well: r N / n = 0.1 · 4 / 3.  With u = 1.2 only they are.
    batch = table_groups([0, 1], [[1, 1], [1, 1]])
    w = 1 - 0.4 / 3
    assert_close(run(ClipCov(share=0.1, cov_low=0.5), batch, LOGP)[1], A / 4 * f64([[w, 1], [-w, -w]]))
    narrow = ClipCov(share=0.1, cov_low=0.5, cov_high=1.2)
    assert_close(run(narrow, batch, LOGP)[1], A / 4 * f64([[1, 1], [-0.8, -0.8]]))


def test_clip_is_wide() -> None:
    # Â = +A: ratio 1.9 has its gradient, 2.1 does not.  Covariances are of log π_old = 0: all 0.
    logp = f64([[1, 1], [1.9, 2.1]]).log()
    batch = table_groups([0, 1], [[1, 1], [1, 1]], logp_old=torch.zeros_like(logp))
    assert_close(run(ClipCov(), batch, logp)[1], A / 4 * f64([[1, 1], [-1.9, 0]]))
