"""SAPO's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.grpo import GRPO
from posttrain.methods.groups.sapo import SAPO

# Rewards 0 and 1: mean 1/2, sample standard deviation √(2 · 1/4) = √½, so Â = ∓½ / (√½ + 1e-4).
A = 0.5 / (math.sqrt(0.5) + 1e-4)
LOG3 = math.log(3)  # σ(log 3) = 3/4, σ(−log 3) = 1/4; the slope σ (1 − σ) is 3/16 at both


def test_the_gate_s_value_and_slope_have_a_temperature_for_each_sign() -> None:
    # τ_pos = 2 at ρ = 1 + log 3 / 2: f = 4/2 · 3/4 = 3/2;  τ_neg = 4 at ρ = 1 + log 3 / 4: f = 4/4 · 3/4 = 3/4.
    # L = −½ (−3/4 A + 3/2 A);  df/dlog π = 4 · 3/16 ρ, with no trace of τ.
    down, up = 1 + LOG3 / 4, 1 + LOG3 / 2
    batch = table_groups([0, 1], [[1], [1]], logp_old=f64([[0], [0]]))
    metrics, _, gradient = learn(SAPO(temperature_positive=2, temperature_negative=4), batch, ln([[down], [up]]))
    close(metrics["loss/policy"], -0.375 * A)
    close(gradient, [[A / 2 * 0.75 * down], [-A / 2 * 0.75 * up]])


def test_it_fades_below_as_it_does_above() -> None:
    # Unlike a clip: both signs learn less on either side of 1.  τ = 2 for both, ρ = 1 ∓ log 3 / 2.
    low, high = 1 - LOG3 / 2, 1 + LOG3 / 2
    batch = table_groups([0, 1], [[1, 1], [1, 1]], logp_old=f64([[0, 0]] * 2))
    method = SAPO(temperature_positive=2, temperature_negative=2)
    _, _, gradient = learn(method, batch, ln([[low, high], [low, high]]))
    close(gradient, f64([[low, high], [-low, -high]]) * 0.75 * A / 4)


def test_the_first_gradient_is_grpo_s() -> None:
    generator = torch.Generator().manual_seed(0)
    logp, mask = torch.randn(4, 5, generator=generator).double(), torch.rand(4, 5, generator=generator) < 0.7
    batch = table_groups([0, 1, 0.5, 0], mask)
    close(learn(SAPO(), batch, logp)[2], learn(GRPO(kl_coef=0), batch, logp)[2])
