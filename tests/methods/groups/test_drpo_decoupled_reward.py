"""DRPO (decoupled reward): the weights of right answers, the softmax over wrong ones, the bound on the divergence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups
from posttrain.methods.groups.drpo_decoupled_reward import DRPODecoupledReward


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: DRPODecoupledReward, batch: Groups, logp: Tensor) -> tuple[Learner, Tensor]:
    learner = Learner(method, TablePolicy(logp))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


def test_short_right_answers_weigh_more() -> None:
    # λ L = 2 / log 2, so exp(−|y| / (λ L)) = 2^(−|y|/2): lengths 1 and 3 weigh ⅔ and ⅓.  One wrong answer of two
    # tokens.  s_i is a mean over tokens: dL/dlog π = −⅔, −⅓ / 3 and +1/2.
    method = DRPODecoupledReward(length_scale=1 / math.log(2), max_length=2)
    _, gradient = run(method, table_groups([1, 1, 0], [[1, 0, 0], [1, 1, 1], [1, 1, 0]]), torch.zeros(3, 3).double())
    assert_close(gradient, f64([[-2 / 3, 0, 0], [-1 / 9, -1 / 9, -1 / 9], [0.5, 0.5, 0]]), rtol=1e-10, atol=1e-12)


def test_likely_wrong_answers_are_pushed_more() -> None:
    # τ = 2, s = 0 and 2 log 3: exp(s/τ) = 1 and 3, so the shares are ¼ and ¾, and τ log mean = 2 log 2.
    # A second prompt without right answers halves everything: the mean is over prompts, also of unequal size.
    logp = f64([[-1.0], [0.0], [2 * math.log(3)], [0.5]])
    batch = table_groups([1, 0, 0, 0], [[1]] * 4, group=[0, 0, 0, 1])
    learner, gradient = run(DRPODecoupledReward(score_temperature=2), batch, logp)
    assert learner.metrics["loss/right"] == pytest.approx(0.5, rel=1e-10)
    assert learner.metrics["loss/wrong"] == pytest.approx(math.log(2), rel=1e-10)
    assert_close(gradient, f64([[-0.5], [0.125], [0.375], [0.0]]), rtol=1e-10, atol=1e-12)


def test_a_long_length_scale_is_disco() -> None:
    # λ → ∞: both right answers weigh ½ whatever their length.
    batch = table_groups([1, 1, 0], [[1, 0], [1, 1], [1, 0]])
    _, gradient = run(DRPODecoupledReward(length_scale=1e12), batch, torch.zeros(3, 2).double())
    assert_close(gradient, f64([[-0.5, 0], [-0.25, -0.25], [1.0, 0]]), rtol=1e-10, atol=1e-10)


def test_divergence_beyond_the_bound_is_pulled_back() -> None:
    # All right: only the bound acts.  log π_old − log π = 0.9, 0.1, 0.5 over three tokens: D = ½.  δ = 0.1, β = 10:
    # 10/2 · 0.4² = 0.8, dL/dlog π = −10 · 0.4 / 3.  Below the bound nothing: D = −½.
    logp = f64([[-0.9, -0.1], [-0.5, 0.0]])
    method = DRPODecoupledReward(divergence=0.1, penalty=10)
    for sign, loss, pull in ((1, 0.8, -4 / 3), (-1, 0.0, 0.0)):
        batch = table_groups([1, 1], [[1, 1], [1, 0]], logp_old=torch.zeros_like(logp))
        learner, gradient = run(method, batch, sign * logp)
        assert learner.metrics["loss/divergence"] == pytest.approx(loss, rel=1e-10)
        assert_close(gradient, f64([[pull, pull], [pull, 0]]), rtol=1e-10, atol=1e-12)


def test_right_is_never_pushed_down_nor_wrong_up() -> None:
    generator = torch.Generator().manual_seed(0)
    logp = -torch.rand(12, 5, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.randint(1, 6, (12, 1), generator=generator)
    reward = (torch.rand(12, generator=generator) < 0.5).double()
    method = DRPODecoupledReward(length_scale=0.01, max_length=5, score_temperature=0.1)
    batch = table_groups(reward.tolist(), mask, group=[i // 4 for i in range(12)])
    _, gradient = run(method, batch, logp)
    assert (gradient[reward == 1] <= 0).all()
    assert (gradient[reward == 0] >= 0).all()
    assert gradient.abs().sum() > 0
