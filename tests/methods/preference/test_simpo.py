"""SimPO against numbers worked by hand."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.preference.dpo import DPO
from posttrain.methods.preference.simpo import SimPO


def test_one_pair_by_hand() -> None:
    # Mean log π: ½ (ln ½ + ln ⅛) = ln ¼ and ln ¹⁄₁₆.  β = 2: s_w − s_l = 2 ln 4 = ln 16; γ/β = ln 2 takes off ln 4:
    # σ(ln 4) = 4/5.  L = −ln(4/5), dL/ds_w = −1/5, and each of the winner's two tokens has β/2 of that, the loser's β.
    batch = table_groups([1.0, 0.0], [[1, 1], [1, 0]])
    metrics, _, gradient = learn(SimPO(beta=2, margin_ratio=math.log(2)), batch, ln([[0.5, 0.125], [0.0625, 1]]))
    close(metrics["loss/policy"], -math.log(0.8))
    close(metrics["margin"], math.log(16))
    close(gradient, [[-0.2, -0.2], [0.4, 0]])


def test_length_alone_decides_nothing() -> None:
    # The same probability per token: the margin is 0 and one half is taken for each answer, whatever the lengths.
    batch = table_groups([1.0, 0.0], [[1, 1, 1, 1], [1, 0, 0, 0]])
    metrics, _, gradient = learn(SimPO(beta=1, margin_ratio=0), batch, torch.full((2, 4), -1.5, dtype=torch.float64))
    close(metrics["loss/policy"], math.log(2))
    close(gradient.sum(1), [-0.5, 0.5])


def test_is_dpo_at_one_length_with_a_flat_reference() -> None:
    # Length n, reference constant, γ = 0: s_w − s_l = β_S / n Δ log π = β_D Δh for β_S = n β_D.
    batch = table_groups([2.0, 1.0, 0.0, 1.0, 0.0], [[1, 1, 1]] * 5, group=[0, 0, 0, 1, 1])
    logp = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    simpo = learn(SimPO(beta=0.6, margin_ratio=0), batch, logp, sizes=(3, 2))[2]
    close(simpo, learn(DPO(beta=0.2), batch, logp, f64([[-1.0] * 3] * 5))[2])
