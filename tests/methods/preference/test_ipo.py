"""IPO against numbers worked by hand."""

from __future__ import annotations

import torch
from toy import table_groups
from worked import close, f64, learn

from posttrain.methods.groups.copg import CoPG
from posttrain.methods.preference.ipo import IPO


def test_one_pair_by_hand() -> None:
    # h_w = 2 (two tokens of 1), h_l = −1: margin 3, target 1 / (2 · 1/4) = 2.  L = 1, dL/dh_w = 2 · 1 = −dL/dh_l.
    batch = table_groups([1.0, 0.0], [[1, 1], [1, 0]])
    metrics, _, gradient = learn(IPO(tau=0.25), batch, f64([[-1, -1], [-3, 0]]), f64([[-2, -2], [-2, 0]]))
    close(metrics["loss/policy"], 1)
    close(metrics["margin"], 3)
    close(gradient, [[2, 2], [-2, 0]])


def test_optimum_is_the_reference_tilted_by_the_preference() -> None:
    # Two answers that μ draws evenly, P(1 ≻ 2) = p.  P(1 ≻ μ) − P(2 ≻ μ) = (½ · ½ + p/2) − (½ · ½ + (1 − p)/2) = p − ½,
    # so π ∝ π_ref exp(P(y ≻ μ) / τ) has h_1 − h_2 = (p − ½) / τ.  There p · dL(1 ≻ 2) + (1 − p) · dL(2 ≻ 1) = 0.
    p, tau = 0.8, 0.2
    logp = f64([[(p - 0.5) / tau], [0]])
    gradients = [learn(IPO(tau=tau), table_groups(labels, [[1]] * 2), logp, torch.zeros_like(logp))[2]
                 for labels in ([1.0, 0.0], [0.0, 1.0])]
    close(p * gradients[0] + (1 - p) * gradients[1], [[0], [0]])


def test_is_copg_with_rewards_a_quarter_either_way() -> None:
    # With r = ±¼ and β = τ, CoPG's gradient is that of (½ − τ Δh)² / 4τ = τ/4 (Δh − 1/2τ)².
    logp = f64([[-1, -0.5], [-2, -0.3]])
    ref, mask = torch.full_like(logp, -1.2), [[1, 1]] * 2
    ipo = learn(IPO(tau=0.3), table_groups([1.0, 0.0], mask), logp, ref)[2]
    copg = learn(CoPG(kl_coef=0.3), table_groups([0.25, -0.25], mask), logp, ref)[2]
    close(copg, 0.3 / 4 * ipo)
