"""RLSC: samples weighted by their own probability."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups
from posttrain.methods.groups.rlsc import RLSC


def gradient(method: RLSC, batch: Groups, logp: Tensor) -> Tensor:
    learner = Learner(method, TablePolicy(logp))
    learner.update(batch)
    return learner.gradient.view(logp.shape)


def test_expected_gradient_is_half_that_of_the_agreement() -> None:
    # A categorical policy p = (½, ¼, ¼), each outcome sampled in proportion: A, A, B, C.  F = Σ p² = 3/8 and
    # ∂F/∂z_j = 2 p_j (p_j − F): 1/8, −1/16, −1/16.  −∂L/∂z_j = Σ_rows −(∂L/∂log π) (1[row is j] − p_j).
    p = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    outcome = torch.tensor([0, 0, 1, 2])
    per_row = gradient(RLSC(smoothing=0), table_groups([0] * 4, [[1]] * 4), p[outcome].log()[:, None])[:, 0]
    ascent = torch.stack([-(per_row * ((outcome == j).double() - p[j])).sum() for j in range(3)])
    assert_close(ascent, torch.tensor([1 / 16, -1 / 32, -1 / 32], dtype=torch.float64), rtol=1e-10, atol=1e-12)


def test_weight_is_of_the_whole_completion() -> None:
    # Probabilities ½ · ½ = ¼ and ⅛; the second row's masked 0.9 does not count.  α = 0.1; L = −½ Σ_i w_i Σ_t log π.
    logp = torch.tensor([[0.5, 0.5], [0.125, 0.9]], dtype=torch.float64).log()
    found = gradient(RLSC(), table_groups([0, 1], [[1, 1], [1, 0]]), logp)
    assert_close(found, torch.tensor([[-0.175, -0.175], [-0.1125, 0]], dtype=torch.float64), rtol=1e-10, atol=1e-12)


def test_the_reward_is_not_read() -> None:
    logp = torch.tensor([[-1.0], [-2.0]], dtype=torch.float64)
    found = [gradient(RLSC(), table_groups(reward, [[1], [1]]), logp) for reward in ([0, 1], [1, 0])]
    assert torch.equal(found[0], found[1])


def test_the_weight_stays_where_the_batch_was_sampled() -> None:
    # log π_old is given: the weight is ¼ although the policy now says ½.
    logp = torch.tensor([[math.log(0.5)]], dtype=torch.float64)
    batch = table_groups([0], [[1]], logp_old=torch.tensor([[math.log(0.25)]], dtype=torch.float64))
    expected = torch.tensor([[-0.25]], dtype=torch.float64)
    assert_close(gradient(RLSC(smoothing=0), batch, logp), expected, rtol=1e-10, atol=1e-12)
