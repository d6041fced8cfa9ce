"""DHPO between GRPO and GSPO."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups, Method
from posttrain.methods.groups.dhpo import DHPO
from posttrain.methods.groups.grpo import GRPO
from posttrain.methods.groups.gspo import GSPO

# Rewards 0 and 1: mean 1/2, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: Method[Any], batch: Groups, logp: Tensor) -> tuple[Learner, Tensor]:
    """The learner after one update, and the gradient with respect to log π, [B, T]."""
    learner = Learner(method, TablePolicy(logp))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


def stale() -> tuple[Groups, Tensor]:
    """Four answers of unequal lengths under a policy that has moved by a few per cent."""
    generator = torch.Generator().manual_seed(0)
    logp = 0.3 * torch.randn(4, 5, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([[5], [2], [4], [1]])
    return table_groups([0, 1, 0.5, 1], mask, logp_old=torch.zeros_like(logp)), logp


def test_ends_are_grpo_and_gspo() -> None:
    batch, logp = stale()
    tokens = DHPO(token_share=1)
    sequences = DHPO(token_share=0, sequence_clip_low=0.05, sequence_clip_high=0.07)
    assert_close(run(tokens, batch, logp)[1], run(GRPO(kl_coef=0), batch, logp)[1])
    assert_close(run(sequences, batch, logp)[1], run(GSPO(clip_low=0.05, clip_high=0.07), batch, logp)[1])


@pytest.mark.parametrize("token_share", [0, 0.3, 1])
def test_first_gradient_does_not_depend_on_the_share(token_share: float) -> None:
    batch, logp = table_groups([0, 1], [[1, 1, 0], [1, 1, 1]]), torch.zeros(2, 3).double()
    expected = run(GRPO(kl_coef=0), batch, logp)[1]
    assert_close(run(DHPO(token_share=token_share), batch, logp)[1], expected)


def test_each_ratio_has_its_own_range() -> None:
    # ε = 0.2, δ = 0.1, m = ½.
    #   Â = −A, ρ = 1.5, ½: tokens −1.5 A, −0.8 A (clipped); s = √¾ = 0.866 < 0.9: −0.9 A (clipped)
    #   Â = +A, ρ = 1.1, 1: tokens 1.1 A, A;                 s = √1.1 within [0.9, 1.1]
    # L = −½ [ ½ (−1.15 − 0.9) + ½ (1.05 + √1.1) ] A
    # Token gradients are −½ · ½ · ½ ρ Â; those through s add −½ · ½ · s Â · ½ to each token.
    logp = f64([[1.5, 0.5], [1.1, 1.0]]).log()
    batch = table_groups([0, 1], [[1, 1], [1, 1]], logp_old=torch.zeros_like(logp))
    learner, gradient = run(DHPO(sequence_clip_low=0.1, sequence_clip_high=0.1), batch, logp)
    s = math.sqrt(1.1)
    assert learner.metrics["loss/policy"] == pytest.approx(-0.25 * (-1.15 - 0.9 + 1.05 + s) * A, abs=1e-12)
    assert_close(gradient, A / 8 * f64([[1.5, 0], [-1.1 - s, -1 - s]]))
    assert learner.metrics["clipped"] == pytest.approx(1 / 4)
    assert learner.metrics["sequences_clipped"] == pytest.approx(1 / 2)
