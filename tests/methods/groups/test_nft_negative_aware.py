"""NFT's implied policy of wrong answers, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups, Method
from posttrain.methods.groups.nft_negative_aware import NFTNegativeAware

# Rewards 0 and 1: mean 1/2, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: Method[Any], batch: Groups, logp: Tensor) -> tuple[Learner, Tensor]:
    """The learner after one update, and the gradient with respect to log π, [B, T]."""
    learner = Learner(method, TablePolicy(logp))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


def test_first_gradient_is_of_the_centred_reward() -> None:
    # Rewards 1, 0, 0, 0: q = ¼, right 1 − q = ¾, wrong −q = −¼; −Â / 4 tokens.
    batch = table_groups([1, 0, 0, 0], [[1]] * 4)
    _, gradient = run(NFTNegativeAware(), batch, torch.zeros(4, 1).double())
    assert_close(gradient, f64([[-0.75], [0.25], [0.25], [0.25]]) / 4)


@pytest.mark.parametrize(("ratio", "gain", "slope"), [(0.5, 0.5 * math.log(1.5), 1 / 6), (1.5, 0.0, 0.75)])
def test_wrong_answers(ratio: float, gain: float, slope: float) -> None:
    # q = ½: n = (1 − ½ ρ) / ½ = 1.5 at ρ = ½ and 0.5 at ρ = 1.5, the latter raised to 1 in value.
    # dn/dlog π = −ρ;  ½ (−dn / max(n, 1)) = ½ · ½ / 1.5 = 1/6 and ½ · 1.5 / 1 = ¾.  Two tokens in all.
    logp = f64([[0.0], [math.log(ratio)]])
    batch = table_groups([1, 0], [[1], [1]], logp_old=torch.zeros_like(logp))
    learner, gradient = run(NFTNegativeAware(), batch, logp)
    assert learner.metrics["loss/policy"] == pytest.approx(-gain / 2)
    assert_close(gradient, f64([[-0.25], [slope / 2]]))


def test_right_answers_are_likelihood_however_far() -> None:
    # q = ½, ρ = e²: loss −½ · 2 / 2 tokens, gradient −½ / 2 as at ρ = 1.
    logp = f64([[2.0], [0.0]])
    batch = table_groups([1, 0], [[1], [1]], logp_old=torch.zeros_like(logp))
    learner, gradient = run(NFTNegativeAware(), batch, logp)
    assert learner.metrics["loss/policy"] == pytest.approx(-0.5)
    assert_close(gradient, f64([[-0.25], [0.25]]))


def test_without_wrong_answers_is_rejection_sampling() -> None:
    # ν = 0 leaves the likelihood of the right answer; half of ν halves the other.
    batch, logp = table_groups([1, 0], [[1], [1]]), torch.zeros(2, 1).double()
    assert_close(run(NFTNegativeAware(negative_weight=0), batch, logp)[1], f64([[-0.25], [0]]))
    assert_close(run(NFTNegativeAware(negative_weight=0.5), batch, logp)[1], f64([[-0.25], [0.125]]))


def test_equal_groups_teach_nothing_and_a_threshold_sorts() -> None:
    # Group 0 is right throughout from 0.5 on; in group 1 0.7 is right and 0.4 wrong: gradients ∓½ · ½ / 2.
    batch = table_groups([0.5, 1, 0.7, 0.4], [[1]] * 4, group=[0, 0, 1, 1])
    learner, gradient = run(NFTNegativeAware(), batch, torch.zeros(4, 1).double())
    assert_close(gradient, f64([[0], [0], [-0.125], [0.125]]))
    assert learner.metrics["silent"] == pytest.approx(1 / 2)
