"""GMPO's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, f64, learn

from posttrain.methods.groups.gmpo import GMPO
from posttrain.methods.groups.grpo import GRPO
from posttrain.methods.groups.gspo import GSPO

# Rewards 0 and 1: mean 1/2, sample standard deviation √(2 · 1/4) = √½, so Â = ∓½ / (√½ + 1e-4).
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def test_clips_tokens_in_log_space_on_one_side() -> None:
    # Log-ratios 1 and −1 in both.  −A keeps 1 and lifts −1 to −0.4: mean 0.3;  +A bounds 1 to 0.4 and keeps −1: −0.3.
    # L = −½ (−A exp(0.3) + A exp(−0.3)).  A free token has the gradient −½ Â · ½ of its completion's mean, others 0.
    batch = table_groups([0, 1], [[1, 1], [1, 1]], logp_old=f64([[0, 0]] * 2))
    metrics, _, gradient = learn(GMPO(), batch, f64([[1, -1]] * 2))
    close(metrics["loss/policy"], -A / 2 * (math.exp(-0.3) - math.exp(0.3)))
    close(metrics["clipped"], 0.5)
    close(gradient, [[A * math.exp(0.3) / 4, 0], [0, -A * math.exp(-0.3) / 4]])


def test_the_two_ranges_are_apart() -> None:
    # ε_low = 0.1, ε_high = 0.2.  −A: −1 becomes −0.1;  +A: 1 becomes 0.2.
    batch = table_groups([0, 1], [[1], [1]], logp_old=f64([[0], [0]]))
    metrics, _, gradient = learn(GMPO(clip_low=0.1, clip_high=0.2), batch, f64([[-1], [1]]))
    close(metrics["loss/policy"], -A / 2 * (-math.exp(-0.1) + math.exp(0.2)))
    assert (gradient == 0).all()


def random(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 5, generator=generator).double(), torch.rand(4, 5, generator=generator) < 0.7


def test_micro_batches_of_one_add_up_to_the_batch() -> None:
    """A mean taken in each of them would make the gradient four times as long."""
    logp, mask = random(0)
    batch = table_groups([0, 1, 0.5, 0], mask, logp_old=torch.zeros(4, 5).double())
    close(learn(GMPO(), batch, logp, sizes=(1, 1, 1, 1))[2], learn(GMPO(), batch, logp)[2])


def test_the_first_gradient_is_grpo_s() -> None:
    logp, mask = random(1)
    batch = table_groups([0, 1, 0.5, 0], mask)
    close(learn(GMPO(), batch, logp)[2], learn(GRPO(kl_coef=0), batch, logp)[2])


def test_without_clips_it_is_gspo() -> None:
    logp, mask = random(2)
    batch = table_groups([0, 1, 0.5, 0], mask, logp_old=torch.zeros(4, 5).double())
    wide, gspo = GMPO(clip_low=99, clip_high=99), GSPO(clip_low=1, clip_high=1e9)
    close(learn(wide, batch, logp)[2], learn(gspo, batch, logp)[2])
