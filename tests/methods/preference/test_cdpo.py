"""cDPO against numbers worked by hand."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, learn, ln

from posttrain.methods.preference.cdpo import CDPO
from posttrain.methods.preference.dpo import DPO


def test_one_pair_by_hand() -> None:
    # h_w = ln 4, h_l = −ln 4 and β = 1/2: m = ln 4, σ(m) = 4/5.  With ε = 1/10
    #     L = −0.9 ln(4/5) − 0.1 ln(1/5),   dL/dm = 4/5 − 9/10 = −1/10,   dL/dh_w = β dL/dm = −1/20 = −dL/dh_l.
    batch = table_groups([1.0, 0.0], [[1, 1]] * 2)
    logp, ref = ln([[0.2, 0.2], [0.1, 0.1]]), ln([[0.1, 0.1], [0.2, 0.2]])
    metrics, _, gradient = learn(CDPO(beta=0.5, flipped=0.1), batch, logp, ref)
    close(metrics["loss/policy"], -0.9 * math.log(0.8) - 0.1 * math.log(0.2))
    close(metrics["margin"], math.log(4))
    close(gradient, [[-0.05, -0.05], [0.05, 0.05]])


def test_rests_at_the_confidence_that_labels_deserve() -> None:
    # ε = 1/5: σ(m) = 4/5 at m = ln 4 and the gradient is 0; at m = ln 9 it is 9/10 − 4/5 = 1/10, back down.
    batch, ref = table_groups([1.0, 0.0], [[1]] * 2), ln([[1], [1]])
    close(learn(CDPO(beta=1, flipped=0.2), batch, ln([[4], [1]]), ref)[2], [[0], [0]])
    close(learn(CDPO(beta=1, flipped=0.2), batch, ln([[9], [1]]), ref)[2], [[0.1], [-0.1]])


def test_without_flips_is_dpo() -> None:
    batch = table_groups([2.0, 1.0, 0.0, 1.0, 0.0], [[1, 1]] * 5, group=[0, 0, 0, 1, 1])
    logp, ref = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(learn(CDPO(flipped=0), batch, logp, ref)[2], learn(DPO(), batch, logp, ref)[2])
