"""CoPG's contrasts, worked by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups, Method
from posttrain.methods.groups.copg import CoPG
from posttrain.methods.groups.rloo import RLOO


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: Method[Any], batch: Groups, logp: Tensor, logp_ref: Tensor) -> tuple[Learner, Tensor]:
    """The learner after one update, and the gradient with respect to log π, [B, T]."""
    learner = Learner(method, TablePolicy(logp), TablePolicy(logp_ref))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


def test_a_pair() -> None:
    # β = ½, π_ref = 1, log π = −1 and −2: R = 0 + ½ and 1 + 1.  Contrast ∓1.5, gradient −½ (∓1.5).
    # The same from (R₁ − R₂)² / 4β = (R₁ − R₂)² / 2 with dR/dlog π = −½: (−1.5)(−½) = ¾ and (1.5)(−½) = −¾.
    logp = f64([[-1], [-2]])
    _, gradient = run(CoPG(kl_coef=0.5), table_groups([0, 1], [[1], [1]]), logp, torch.zeros_like(logp))
    assert_close(gradient, f64([[0.75], [-0.75]]))


def test_rests_at_the_tilted_reference_whoever_sampled() -> None:
    # log π − log π_ref = r / β + 0.7 for whole answers, divided among two tokens; log μ = 0 is neither.
    ref = f64([[-1, -2], [-3, -1], [-2, -2], [-9, -5]])
    reward = [0.0, 1.0, 3.0, -0.5]
    logp = ref + (f64([reward]).T / 0.4 + 0.7) * f64([[0.3, 0.7]])
    _, gradient = run(CoPG(kl_coef=0.4), table_groups(reward, [[1, 1]] * 4), logp, ref)
    assert_close(gradient, torch.zeros_like(logp))


def test_is_half_the_gradient_of_all_pairs() -> None:
    # Mean over the 6 pairs of (R_i − R_j)² / 4β, differentiated by itself; the third token of row 1 is a tool's.
    mask = torch.tensor([[1, 1, 0], [1, 0, 1], [1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    logp, ref = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    reward, beta = [0.0, 1.0, 0.3, 2.0], 0.3
    table = logp.clone().requires_grad_()
    tilted = torch.tensor(reward).double() - beta * ((table - ref) * mask).sum(1)
    pairs = [(tilted[i] - tilted[j]) ** 2 / (4 * beta) for i in range(4) for j in range(i)]
    (expected,) = torch.autograd.grad(torch.stack(pairs).mean(), table)
    assert_close(run(CoPG(kl_coef=beta), table_groups(reward, mask), logp, ref)[1], expected)


def test_on_the_reference_is_rloo() -> None:
    logp = f64([[-1, -2], [-3, -1], [-2, -2]])
    batch = table_groups([0, 1, 5], [[1, 1], [1, 0], [1, 1]])
    assert_close(run(CoPG(), batch, logp, logp)[1], run(RLOO(), batch, logp, logp)[1])


def test_keeps_moving_with_the_policy() -> None:
    """The contrast is of the policy at hand and not of the one before the first update, unlike RLOO's."""
    logp, ref = f64([[-1], [-2]]), f64([[0], [0]])
    batch = table_groups([0, 1], [[1], [1]], logp_old=f64([[-5], [-5]]))
    assert_close(run(CoPG(kl_coef=0.5), batch, logp, ref)[1], f64([[0.75], [-0.75]]))
