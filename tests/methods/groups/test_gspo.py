"""GSPO's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, f64, learn

from posttrain.methods.groups.grpo import GRPO
from posttrain.methods.groups.gspo import GSPO

# Rewards 0 and 1: mean 1/2, sample standard deviation √(2 · 1/4) = √½, so Â = ∓½ / (√½ + 1e-4).
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def test_clips_whole_sequences() -> None:
    # s = exp(mean log-ratio) = exp(1e-4) and exp(1e-3).  Only the second clips, at 1 + 4e-4, although one token of the
    # first has the ratio exp(1e-3):  L = −½ (−A exp(1e-4) + 1.0004 A).  ds/dlog π = s / 2 for each of two tokens.
    logp = f64([[1e-3, -8e-4], [1e-3, 1e-3]])
    batch = table_groups([0, 1], [[1, 1], [1, 1]], logp_old=f64([[0, 0]] * 2))
    metrics, _, gradient = learn(GSPO(), batch, logp)
    close(metrics["loss/policy"], -A / 2 * (-math.exp(1e-4) + 1.0004))
    close(metrics["clipped"], 0.5)
    close(gradient, [[A * math.exp(1e-4) / 4] * 2, [0, 0]])


def test_clips_below_only_what_should_become_less_likely() -> None:
    # s = exp(−1e-3) < 1 − 3e-4 for both: −A is clipped at −0.9997 A, +A is free.
    batch = table_groups([0, 1], [[1], [1]], logp_old=f64([[0], [0]]))
    metrics, _, gradient = learn(GSPO(), batch, f64([[-1e-3], [-1e-3]]))
    close(metrics["loss/policy"], -A / 2 * (-0.9997 + math.exp(-1e-3)))
    close(gradient, [[0], [-A * math.exp(-1e-3) / 2]])


def test_a_tool_token_is_left_out_of_the_mean() -> None:
    # 2e-4 over two own tokens: s = exp(1e-4); counting the tool's, exp(2/3 · 1e-4).
    batch = table_groups([0, 1], [[1, 0, 1], [1, 0, 0]], logp_old=f64([[0, 0, 0]] * 2))
    metrics, _, gradient = learn(GSPO(), batch, f64([[2e-4, 9, 0], [0, 0, 0]]))
    close(metrics["ratio"], (math.exp(1e-4) + 1) / 2)
    close(gradient, [[A * math.exp(1e-4) / 4, 0, A * math.exp(1e-4) / 4], [-A / 2, 0, 0]])


def test_the_first_gradient_is_grpo_s() -> None:
    generator = torch.Generator().manual_seed(0)
    logp, mask = torch.randn(4, 5, generator=generator).double(), torch.rand(4, 5, generator=generator) < 0.7
    batch = table_groups([0, 1, 0.5, 0], mask)
    close(learn(GSPO(), batch, logp)[2], learn(GRPO(kl_coef=0), batch, logp)[2])
