"""DDPM and DDIM against their formulas, worked by hand; the contract of denoising steps is in test_flow.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from picture_toy import FreeNet

from posttrain.policies.diffusion import DiffusionPolicy, kept


def test_the_cosine() -> None:
    assert kept(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).tolist() == pytest.approx([1, 0.5, 0], abs=1e-12)


@pytest.mark.parametrize("spread", [1.0, 0.6])
def test_a_step(spread: float) -> None:
    # From t = 1 to s = 1/2 of S = 2: ᾱ_t = 0 and ᾱ_s = ½, x = 2 and v̂ = 1.5, so x̂_0 = −1.5 and ε̂ = 2.
    #     σ² = η² (1 − ½)/1 · (1 − 0) = η²/2,  mean = √½ · (−1.5) + √(½ − η²/2) · 2.
    # The other row is not drawn, so σ = 0: DDIM.
    net: Any = FreeNet(torch.tensor([1.5, 0.0], dtype=torch.float64))
    policy = DiffusionPolicy(net, 2, spread)
    x = torch.full((2, 1), 2.0, dtype=torch.float64)
    mean, std = policy.transition(x, torch.tensor([0, 0]), torch.zeros(2, dtype=torch.long),
                                  torch.tensor([True, False]))
    drawn = -1.5 * math.sqrt(0.5) + 2 * math.sqrt(0.5 - spread**2 / 2)
    assert mean[:, 0].tolist() == pytest.approx([drawn, 0.5 * math.sqrt(0.5)], abs=1e-7)  # √ of a rounded 0
    assert std.tolist() == pytest.approx([spread * math.sqrt(0.5), 0.0], abs=1e-12)


def test_the_ancestral_step_is_the_posterior() -> None:
    # η = 1: q(x_s | x_t, x_0) has mean √ᾱ_s β/(1−ᾱ_t) x_0 + √α (1−ᾱ_s)/(1−ᾱ_t) x_t with α = ᾱ_t/ᾱ_s, β = 1 − α
    # (Ho et al. 2006.11239, eq. 7), x_0 being what the net's v implies; its variance is (1−ᾱ_s)/(1−ᾱ_t) β.
    said = [0.3, -0.7, 0.2, 0.9]
    net: Any = FreeNet(torch.tensor(said, dtype=torch.float64))
    policy = DiffusionPolicy(net, 4, 1.0)
    x = torch.tensor([[0.4], [1.3], [-0.2]], dtype=torch.float64)
    mean, std = policy.transition(x, torch.tensor([0, 1, 2]), torch.zeros(3, dtype=torch.long), torch.ones(3).bool())
    for k in range(3):
        here, there = (math.cos(math.pi / 2 * t) ** 2 for t in (1 - k / 4, 1 - (k + 1) / 4))
        seen = float(x[k, 0])
        picture = math.sqrt(here) * seen - math.sqrt(1 - here) * said[k]
        alpha, rest = here / there, 1 - here
        posterior = (math.sqrt(there) * (1 - alpha) / rest * picture
                     + math.sqrt(alpha) * (1 - there) / rest * seen)
        assert float(mean[k, 0].detach()) == pytest.approx(posterior, rel=1e-7)
        assert float(std[k]) ** 2 == pytest.approx((1 - there) / rest * (1 - alpha), rel=1e-9)


def test_the_last_step_decides_nothing() -> None:
    # From t = ½ to the picture: ᾱ = ½, so x̂_0 = √½ (x − v̂).
    net: Any = FreeNet(torch.tensor([0.3, 0.4], dtype=torch.float64))
    policy = DiffusionPolicy(net, 2, 1.0)
    made = policy.sample(torch.zeros(3, dtype=torch.long), torch.randn(3, 3, 1, dtype=torch.float64))
    assert made.mask.tolist() == [[True, False]] * 3
    state = made.trajectories.state[:, 1, 0]
    assert torch.allclose(made.trajectories.picture[:, 0], math.sqrt(0.5) * (state - 0.4))


def test_what_the_net_learns_gives_back_the_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    picture, noise = (torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    net: Any = FreeNet(torch.zeros(2, dtype=torch.float64))
    time = torch.rand(5, generator=generator, dtype=torch.float64)
    x, v = DiffusionPolicy(net, 2, 1.0).noised(picture, time, noise)
    share = kept(time)[:, None]
    assert torch.allclose(share.sqrt() * x - (1 - share).sqrt() * v, picture)
    assert torch.allclose((1 - share).sqrt() * x + share.sqrt() * v, noise)
