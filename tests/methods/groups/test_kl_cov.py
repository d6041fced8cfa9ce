"""KL-Cov's choice of tokens and what they pay, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups, Method
from posttrain.methods.groups.kl_cov import KLCov

# Rewards 0 and 1: mean 1/2, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: Method[Any], batch: Groups, logp: Tensor) -> tuple[Learner, Tensor]:
    """The learner after one update, and the gradient with respect to log π, [B, T]."""
    learner = Learner(method, TablePolicy(logp))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


# Â = ∓A, mean 0; log π_old with mean −2.  c = −A (−4 + 2) = 2A, −A · 0 = 0 | A (−1 + 2) = A, A (−1 + 2) = A.
OLD = f64([[-4, -2], [-1, -1]])


def batch() -> Groups:
    return table_groups([0, 1], [[1, 1], [1, 1]], logp_old=OLD)


@pytest.mark.parametrize(("ratio", "sign"), [(2.0, 1), (0.5, -1)])
def test_the_largest_pays_for_moving_either_way(ratio: float, sign: int) -> None:
    # ⌈0.25 · 4⌉ = 1 token.  L = ¼ (ρ A + A − A − A) + ¼ β |log ρ|;  gradient ¼ (ρ A + β sign), ¼ A | −¼ A, −¼ A.
    logp = OLD + f64([[math.log(ratio), 0], [0, 0]])
    learner, gradient = run(KLCov(share=0.25, kl_coef=0.7), batch(), logp)
    assert learner.metrics["loss/policy"] == pytest.approx((ratio - 1) * A / 4)
    assert learner.metrics["loss/kl"] == pytest.approx(0.7 * math.log(2) / 4)
    assert_close(gradient, f64([[ratio * A + 0.7 * sign, A], [-A, -A]]) / 4)


def test_both_terms_have_one_denominator() -> None:
    # The same batch fifty times, ratio 2: KL against policy gradient stays β / (2 A), whatever the token count.
    many = table_groups([0, 1] * 50, [[1, 1]] * 100, group=[row // 2 for row in range(100)],
                        logp_old=OLD.repeat(50, 1))
    logp = (OLD + f64([[math.log(2), 0], [0, 0]])).repeat(50, 1)
    learner, gradient = run(KLCov(share=0.25), many, logp)
    assert_close(gradient, (f64([[2 * A + 1, A], [-A, -A]]) / 200).repeat(50, 1))
    assert learner.metrics["held"] == pytest.approx(0.25)


def test_share() -> None:
    # None; half of four tokens, which ties extend to three; all that are positive, which are three of four.
    logp = OLD + math.log(2)
    for share, held in ((0.0, 0), (0.5, 3), (1.0, 3)):
        learner, _ = run(KLCov(share=share), batch(), logp)
        assert learner.metrics["held"] == pytest.approx(held / 4)


def test_nothing_else_clips() -> None:
    # Without held tokens: −ρ Â / N at ratio 10, for both signs.
    _, gradient = run(KLCov(share=0), batch(), OLD + math.log(10))
    assert_close(gradient, 10 * A / 4 * f64([[1, 1], [-1, -1]]))
