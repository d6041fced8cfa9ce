from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.methods.groups.bgpo_dlm import BGPODLM

# Rewards 1, 0: mean ½, std 1/√2, so Â = ± a with a = ½ / (1/√2 + 1e-4).  Decisions stand for n = 3 draws.
A = 0.5 / (0.5**0.5 + 1e-4)
OLD = torch.tensor([[-9.0, -4.0, -6.0], [-5.0, -7.0, -3.0]], dtype=torch.float64)
ADVANTAGE = torch.tensor([A, -A], dtype=torch.float64)


def updated(difference: Tensor) -> Learner:
    made = Learner(BGPODLM(), TablePolicy(OLD + difference))
    made.update(table_groups([1.0, 0.0], [[1, 1, 1]] * 2, logp_old=OLD))
    return made


def exact(difference: Tensor) -> tuple[Tensor, Tensor]:
    """−mean_i exp(mean_j d_ij) Â_i, and its gradient."""
    d = difference.clone().requires_grad_()
    loss = -(d.mean(1).exp() * ADVANTAGE).mean()
    return loss.detach(), torch.autograd.grad(loss, d)[0]


def test_worked_by_hand() -> None:
    # d = ½, 0, −¼ at Â = a: Σ (1 + d) / 3 = 3.25 / 3.  d = log 2, 0, 0 at −a: Σ e^d / 3 = 4 / 3.
    # L = −½ (3.25 / 3 a − 4 / 3 a) = 0.125 a.  Gradient: −a / 6 in row 0, a e^d / 6 in row 1.
    made = updated(torch.tensor([[0.5, 0.0, -0.25], [math.log(2), 0.0, 0.0]], dtype=torch.float64))
    assert_close(made.metrics["loss/policy"], 0.125 * A, rtol=0, atol=1e-10)
    expected = torch.tensor([-1.0, -1, -1, 2, 1, 1], dtype=torch.float64) * A / 6
    assert_close(made.gradient, expected, rtol=0, atol=1e-10)


def test_on_policy_it_is_the_likelihood_ratio_in_value_and_gradient() -> None:
    loss, gradient = exact(torch.zeros(2, 3, dtype=torch.float64))
    made = updated(torch.zeros(2, 3, dtype=torch.float64))
    assert_close(made.metrics["loss/policy"], float(loss), rtol=0, atol=1e-12)
    assert_close(made.gradient.view(2, 3), gradient, rtol=0, atol=1e-12)


def test_elsewhere_its_loss_is_never_below() -> None:
    for seed in range(20):
        d = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert updated(d).metrics["loss/policy"] > float(exact(d)[0])
