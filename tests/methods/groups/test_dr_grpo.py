"""Dr. GRPO's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.dr_grpo import DrGRPO


def test_the_spread_does_not_divide() -> None:
    # Rewards 0, 0, 0, 2: mean ½.
    _, prepared, _ = learn(DrGRPO(), table_groups([0, 0, 0, 2], [[1]] * 4), f64([[0]] * 4))
    close(prepared.credit[:, 0], [-0.5, -0.5, -0.5, 1.5])


def test_every_token_counts_alike_however_wide_the_batch() -> None:
    # Rewards 0 and 2, Â = ∓1, one token and three, L_max = 4: dL/dlog π = −½ · ¼ Â for every token.
    for width in (3, 6):
        mask = torch.zeros(2, width)
        mask[0, :1] = mask[1, :3] = 1
        logp = torch.zeros(2, width, dtype=torch.float64)
        _, _, gradient = learn(DrGRPO(), table_groups([0, 2], mask, limit=4), logp)
        close(gradient[:, :3], [[1 / 8, 0, 0], [-1 / 8, -1 / 8, -1 / 8]])


def test_micro_batches_do_not_change_the_constant() -> None:
    batch = table_groups([0, 2], [[1, 0, 0], [1, 1, 1]], limit=4)
    _, _, gradient = learn(DrGRPO(), batch, f64([[0, 0, 0]] * 2), sizes=(1, 1))
    close(gradient, [[1 / 8, 0, 0], [-1 / 8, -1 / 8, -1 / 8]])


def test_clips_both_sides() -> None:
    # Â = ∓1, ratios ½ and 1½, range [0.8, 1.2], L_max = 2:
    # L = −½ · ½ (−0.8 − 1.5 + 0.5 + 1.2) = 0.15;   dL/dlog π = −¼ ρ Â where not clipped.
    batch = table_groups([0, 2], [[1, 1], [1, 1]], logp_old=f64([[0, 0]] * 2), limit=2)
    metrics, _, gradient = learn(DrGRPO(), batch, ln([[0.5, 1.5]] * 2))
    close(metrics["loss/policy"], 0.15)
    close(gradient, [[0, 0.375], [-0.125, 0]])
