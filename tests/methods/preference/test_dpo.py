"""DPO against numbers worked by hand."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.preference.dpo import DPO


def test_one_pair_by_hand() -> None:
    # Two answers of two tokens.  h_w = ln 4 − ln 1 = ln 4 and h_l = ln 1 − ln 4 = −ln 4, so with β = 1/2 the margin is
    # ln 4: σ(ln 4) = 4/5, L = −ln(4/5), and dL/dh_w = −β (1 − σ) = −1/10 at each of its tokens, dL/dh_l = +1/10.
    batch = table_groups([1.0, 0.0], [[1, 1]] * 2)
    logp, ref = ln([[0.2, 0.2], [0.1, 0.1]]), ln([[0.1, 0.1], [0.2, 0.2]])
    metrics, _, gradient = learn(DPO(beta=0.5), batch, logp, ref)
    close(metrics["loss/policy"], -math.log(4 / 5))
    close(metrics["margin"], math.log(4))
    close(metrics["right"], 1)
    close(gradient, [[-0.1, -0.1], [0.1, 0.1]])


def test_every_pair_of_a_group_counts_once_however_it_is_split() -> None:
    # Group 0 has rewards 2, 1, 0: three pairs.  Group 1 has 1, 0: one.  Group 2 is equal: none.  At π = π_ref each
    # margin is 0 and dL/dh = ∓β/2 / 4 a pair: −β/8 · (wins − losses) with β = 1.
    batch = table_groups([2.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0], [[1]] * 7, group=[0, 0, 0, 1, 1, 2, 2])
    logp = torch.full((7, 1), -1.0, dtype=torch.float64)
    for sizes in ((), (3, 2)):
        metrics, _, gradient = learn(DPO(beta=1), batch, logp, logp, sizes)
        close(metrics["loss/policy"], math.log(2))
        close(gradient[:, 0], f64([-2, 0, 2, -1, 1, 0, 0]) / 8)


def test_optimum_is_the_tilted_reference() -> None:
    # Preferences that are exactly Bradley–Terry under rewards r: P(i ≻ j) = σ(r_i − r_j).  At h_i = r_i / β the
    # expected gradient of a pair is P(i ≻ j) dL(i ≻ j) + P(j ≻ i) dL(j ≻ i)
    # = −β σ(r_ij) σ(−r_ij) + β σ(−r_ij) σ(r_ij) = 0.
    reward, beta = f64([0.3, -0.5]), 0.2
    logp = (reward / beta)[:, None]
    gradients = []
    for labels in ([1.0, 0.0], [0.0, 1.0]):
        _, _, gradient = learn(DPO(beta=beta), table_groups(labels, [[1]] * 2), logp, torch.zeros_like(logp))
        gradients.append(gradient)
    chance = torch.sigmoid(reward[0] - reward[1])
    close(chance * gradients[0] + (1 - chance) * gradients[1], torch.zeros_like(logp))
