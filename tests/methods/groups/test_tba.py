"""TBA's trajectory balance, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups, Method
from posttrain.methods.groups.copg import CoPG
from posttrain.methods.groups.tba import TBA


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: Method[Any], batch: Groups, logp: Tensor, logp_ref: Tensor) -> tuple[Learner, Tensor]:
    """The learner after one update, and the gradient with respect to log π, [B, T]."""
    learner = Learner(method, TablePolicy(logp), TablePolicy(logp_ref))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


def test_a_pair() -> None:
    # β = ½, π_ref = 1: r / β = 0 and 2, d = −1 and −2, z = (0 + 1 + 2 + 2) / 2 = 2.5.
    # z + d − r / β = 1.5 and −1.5: L = 2.25, gradient ½ · 2 · (±1.5).
    logp = f64([[-1], [-2]])
    learner, gradient = run(TBA(kl_coef=0.5), table_groups([0, 1], [[1], [1]]), logp, torch.zeros_like(logp))
    assert learner.metrics["loss/balance"] == pytest.approx(2.25)
    assert_close(gradient, f64([[1.5], [-1.5]]))


def test_is_zero_at_the_tilted_reference_whoever_sampled() -> None:
    # log π − log π_ref = r / β + 0.7 for whole answers, divided among two tokens.
    ref = f64([[-1, -2], [-3, -1], [-2, -2], [-9, -5]])
    reward = [0.0, 1.0, 3.0, -0.5]
    logp = ref + (f64([reward]).T / 0.4 + 0.7) * f64([[0.3, 0.7]])
    learner, gradient = run(TBA(kl_coef=0.4), table_groups(reward, [[1, 1]] * 4), logp, ref)
    assert learner.metrics["loss/balance"] == pytest.approx(0, abs=1e-24)
    assert_close(gradient, torch.zeros_like(logp), atol=1e-12, rtol=0)


def test_gradient_is_copgs_but_for_scale() -> None:
    # −(2/β) (R_i − mean R) / n against −n / (n − 1) (R_i − mean R) / n with n = 4: a factor of 2/β · ¾.
    generator = torch.Generator().manual_seed(0)
    logp, ref = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    batch = table_groups([0, 1, 0.3, 2], [[1, 1, 0], [1, 0, 1], [1, 1, 1], [1, 0, 0]])
    expected = 2 / 0.3 * 0.75 * run(CoPG(kl_coef=0.3), batch, logp, ref)[1]
    assert_close(run(TBA(kl_coef=0.3), batch, logp, ref)[1], expected)


def test_each_prompt_has_its_own_constant() -> None:
    # Two prompts at their optimum with different constants, 0.7 and −3: nothing is left to do.
    ref = f64([[-1], [-3], [-2], [-9]])
    d = f64([[0.7], [1 / 0.4 + 0.7], [2 / 0.4 - 3], [-3]])
    _, gradient = run(TBA(kl_coef=0.4), table_groups([0, 1, 2, 0], [[1]] * 4, group=[5, 5, 2, 2]), ref + d, ref)
    assert_close(gradient, torch.zeros_like(ref), atol=1e-12, rtol=0)
