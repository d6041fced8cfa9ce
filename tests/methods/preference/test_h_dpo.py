"""H-DPO against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.preference.dpo import DPO
from posttrain.methods.preference.h_dpo import HDPO


def test_one_pair_by_hand() -> None:
    # log π: ln 4 against 0, log π_ref: ln 2 against 0.  α = 2, β = 1: m = 2 ln 4 − ln 2 = ln 8, σ = 8/9.
    # L = −ln(8/9), dL/dlog π_w = −αβ (1 − σ) = −2/9.
    metrics, _, gradient = learn(HDPO(beta=1, entropy_weight=2), table_groups([1.0, 0.0], [[1]] * 2),
                                 ln([[4], [1]]), ln([[2], [1]]))
    close(metrics["loss/policy"], -math.log(8 / 9))
    close(metrics["margin"], math.log(8))
    close(gradient, [[-2 / 9], [2 / 9]])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_optimum_is_the_sharpened_and_tilted_reference(alpha: float) -> None:
    # Bradley–Terry under r: P(i ≻ j) = σ(r_i − r_j).  At log π = (log π_ref + r / β) / α the margin is r_i − r_j, and
    # the expected gradient of a pair vanishes.
    reward, ref, beta = f64([0.3, -0.5]), ln([0.2, 0.8]), 0.4
    logp = ((ref + reward / beta) / alpha)[:, None]
    gradients = [learn(HDPO(beta=beta, entropy_weight=alpha), table_groups(labels, [[1]] * 2), logp, ref[:, None])[2]
                 for labels in ([1.0, 0.0], [0.0, 1.0])]
    chance = torch.sigmoid(reward[0] - reward[1])
    close(chance * gradients[0] + (1 - chance) * gradients[1], [[0], [0]])


def test_without_reweighing_is_dpo() -> None:
    batch = table_groups([2.0, 1.0, 0.0, 1.0, 0.0], [[1, 1]] * 5, group=[0, 0, 0, 1, 1])
    logp, ref = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(learn(HDPO(entropy_weight=1), batch, logp, ref, (3, 2))[2], learn(DPO(), batch, logp, ref)[2])
