"""Projection and quantile regression, by hand."""

from __future__ import annotations

import pytest
import torch

from posttrain import ops

SUPPORT = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)


def test_mass_goes_to_the_two_nearest_atoms() -> None:
    # 0.25 of the way from 0 to 1: ¾ and ¼ of 0.6.  5 lies above the support: all of its 0.4 to 2.
    places, shares = torch.tensor([[0.25, 5.0]], dtype=torch.float64), torch.tensor([[0.6, 0.4]], dtype=torch.float64)
    assert ops.project(places, shares, SUPPORT)[0].tolist() == pytest.approx([0.45, 0.15, 0.4], abs=1e-12)


def test_the_mean_within_the_support_is_kept() -> None:
    places = 2 * torch.rand(7, 5, dtype=torch.float64)
    shares = torch.rand(7, 5, dtype=torch.float64).softmax(-1)
    found = ops.project(places, shares, SUPPORT)
    assert torch.allclose(found.sum(-1), torch.ones(7, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(found @ SUPPORT, (places * shares).sum(-1), atol=1e-12)


def test_atoms_stay_where_they_are() -> None:
    shares = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    assert torch.equal(ops.project(SUPPORT[None], shares, SUPPORT), shares)


def test_quantile_loss_by_hand() -> None:
    # θ = (0, 2), τ = (¼, ¾), y = (1, 3), c = 1.  u_1j = 1, 3: h = 0.5, 2.5, weights ¼: mean 0.375.
    # u_2j = −1, 1: h = 0.5, 0.5, weights |¾ − 1| = ¼ and ¾: mean of 0.125 and 0.375 is 0.25.  Sum 0.625.
    theta = torch.tensor([[0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    loss = ops.quantile_huber(theta, torch.tensor([[1.0, 3.0]], dtype=torch.float64), 1.0)
    assert loss.tolist() == pytest.approx([0.625], abs=1e-12)
    loss.sum().backward()
    # −¼ · (1 + 1) / 2 = −0.25;  ( ¼ · 1 − ¾ · 1 ) / 2 = −0.25
    assert theta.grad is not None
    assert theta.grad[0].tolist() == pytest.approx([-0.25, -0.25], abs=1e-12)


def test_quantiles_of_a_sample_are_where_the_slope_is_zero() -> None:
    y = torch.linspace(0, 1, 101, dtype=torch.float64)[None]
    theta = torch.tensor([[0.25, 0.75]], dtype=torch.float64, requires_grad=True)  # its quartiles
    ops.quantile_huber(theta, y, 1e-9).sum().backward()
    assert theta.grad is not None
    assert float(theta.grad.abs().max()) < 1e-10
