"""DDPM and DDIM against their formulas, worked by hand; the contract of denoising steps is in test_flow.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from picture_toy import FreeNet

from posttrain.policies.diffusion import LEAST, REACH, DiffusionPolicy, kept


def test_the_cosine_ends_where_it_should() -> None:
    assert float(kept(torch.tensor(0.0))) == 1
    assert float(kept(torch.tensor(1.0, dtype=torch.float64))) == pytest.approx(LEAST, rel=1e-9)


@pytest.mark.parametrize("spread", [1.0, 0.5])
def test_a_step(spread: float) -> None:
    # From t = 1 to s = 1/2 of S = 2: ᾱ_t = 1e-3 and ᾱ_s = cos²(c π/4).  x = 2, ε̂ = 1.5:
    #     x̂_0 = (2 − √.999 · 1.5) / √.001,  σ² = η² (1 − ᾱ_s)/.999 · (1 − .001/ᾱ_s),
    #     mean = √ᾱ_s x̂_0 + √(1 − ᾱ_s − σ²) · 1.5.  The other row is not drawn, so σ = 0: DDIM.
    net: Any = FreeNet(torch.tensor([1.5, 1.5], dtype=torch.float64))
    policy = DiffusionPolicy(net, 2, spread)
    x = torch.full((2, 1), 2.0, dtype=torch.float64)
    mean, std = policy.transition(x, torch.tensor([0, 0]), torch.zeros(2, dtype=torch.long),
                                  torch.tensor([True, False]))
    there = math.cos(REACH / 2) ** 2
    picture = (2 - math.sqrt(0.999) * 1.5) / math.sqrt(0.001)
    variance = spread**2 * (1 - there) / 0.999 * (1 - 0.001 / there)
    drawn = math.sqrt(there) * picture + math.sqrt(1 - there - variance) * 1.5
    computed = math.sqrt(there) * picture + math.sqrt(1 - there) * 1.5
    assert mean[:, 0].tolist() == pytest.approx([drawn, computed], rel=1e-9)
    assert std.tolist() == pytest.approx([math.sqrt(variance), 0.0], rel=1e-9)


def test_the_ancestral_step_is_the_posterior() -> None:
    # η = 1: q(x_s | x_t, x_0) has mean √ᾱ_s β/(1−ᾱ_t) x_0 + √α (1−ᾱ_s)/(1−ᾱ_t) x_t with α = ᾱ_t/ᾱ_s, β = 1 − α
    # (Ho et al. 2006.11239, eq. 7), x_0 being what the net's noise implies; its variance is (1−ᾱ_s)/(1−ᾱ_t) β.
    net: Any = FreeNet(torch.tensor([0.3, -0.7, 0.2, 0.9], dtype=torch.float64))
    policy = DiffusionPolicy(net, 4, 1.0)
    x = torch.tensor([[0.4], [1.3], [-0.2]], dtype=torch.float64)
    step = torch.tensor([0, 1, 2])
    mean, std = policy.transition(x, step, torch.zeros(3, dtype=torch.long), torch.ones(3).bool())
    for k in range(3):
        here, there = (math.cos(REACH * t) ** 2 for t in (1 - k / 4, 1 - (k + 1) / 4))
        noise = float(net.values[k].detach())
        picture = (float(x[k, 0]) - math.sqrt(1 - here) * noise) / math.sqrt(here)
        alpha, rest = here / there, 1 - here
        posterior = (math.sqrt(there) * (1 - alpha) / rest * picture
                     + math.sqrt(alpha) * (1 - there) / rest * float(x[k, 0]))
        assert float(mean[k, 0]) == pytest.approx(posterior, rel=1e-9)
        assert float(std[k]) ** 2 == pytest.approx((1 - there) / rest * (1 - alpha), rel=1e-9)


def test_the_last_step_decides_nothing() -> None:
    net: Any = FreeNet(torch.tensor([0.3, 0.4], dtype=torch.float64))
    policy = DiffusionPolicy(net, 2, 1.0)
    made = policy.sample(torch.zeros(3, dtype=torch.long), torch.randn(3, 3, 1, dtype=torch.float64))
    assert made.mask.tolist() == [[True, False]] * 3
    state = made.trajectories.state[:, 1, 0]
    share = math.cos(REACH / 2) ** 2
    assert torch.allclose(made.trajectories.picture[:, 0], (state - math.sqrt(1 - share) * 0.4) / math.sqrt(share))
