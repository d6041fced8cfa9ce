"""RPO against numbers worked by hand."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, learn, ln

from posttrain.methods.preference.dpo import DPO
from posttrain.methods.preference.rpo_sft_regularized import RPOSFTRegularized


def test_one_pair_by_hand() -> None:
    # h_w = ln 4, h_l = −ln 4, β = 1/2: m = ln 4, −log σ(m) = −ln(4/5).  η = 2: −η β log π(y_w) = −ln 0.04.
    # dL/dlog π_w = −1/10 − η β = −1.1 at each of its tokens, dL/dlog π_l = +1/10.
    batch = table_groups([1.0, 0.0], [[1, 1]] * 2)
    logp, ref = ln([[0.2, 0.2], [0.1, 0.1]]), ln([[0.1, 0.1], [0.2, 0.2]])
    metrics, _, gradient = learn(RPOSFTRegularized(beta=0.5, imitation=2), batch, logp, ref)
    close(metrics["loss/policy"], -math.log(0.8))
    close(metrics["loss/imitation"], -math.log(0.04))
    close(gradient, [[-1.1, -1.1], [0.1, 0.1]])


def test_adds_to_dpo_the_likelihood_of_the_winners() -> None:
    # Rewards 2, 1, 0 are three pairs, won 2, 1, 0 times; 1, 0 is the fourth: ηβ/4 · (2, 1, 0, 1, 0) beyond DPO.
    batch = table_groups([2.0, 1.0, 0.0, 1.0, 0.0], [[1, 1]] * 5, group=[0, 0, 0, 1, 1])
    logp, ref = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wins = torch.tensor([2.0, 1, 0, 1, 0], dtype=torch.float64)[:, None].expand(5, 2)
    dpo = learn(DPO(beta=0.3), batch, logp, ref)[2]
    for eta in (0.0, 0.7):
        found = learn(RPOSFTRegularized(beta=0.3, imitation=eta), batch, logp, ref, (3, 2))[2]
        close(found, dpo - eta * 0.3 / 4 * wins)
