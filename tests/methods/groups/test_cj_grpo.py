from __future__ import annotations

import torch
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups
from posttrain.methods.groups.cj_grpo import CJGRPO
from posttrain.methods.groups.grpo import GRPO

# Row 0: tokens 0 and 2 in pass 0, token 1 in pass 1: S = 2, shares ¼, ½, ¼.  Row 1: one pass of two tokens, then
# a masked one: S = 1, shares ½, ½.  Rewards 1, 0 -> Â = ½, −½.
MASK = [[1, 1, 1], [1, 1, 0]]
WHEN = torch.tensor([[0, 1, 0], [3, 3, 1]])
OLD = torch.full((2, 3), -1.0, dtype=torch.float64)


def batch() -> Groups:
    return table_groups([1.0, 0.0], MASK, logp_old=OLD)


def test_worked_by_hand() -> None:
    # ρ = 1.2, 1.8, 1 | 0.4, 1: gains 0.6, 0.75 (clipped at 1.5), 0.5 | −0.25 (clipped at 0.5), −0.5.
    # L = −½ [ (0.6 + 0.5) / 4 + 0.75 / 2 + (−0.25 − 0.5) / 2 ] = −½ · 0.275 = −0.1375
    # dL/dlog π = −½ share Â ρ where unclipped: −½ · ¼ · 0.6 = −0.075, −½ · ¼ · 0.5 = −0.0625, +½ · ½ · 0.5 = 0.125
    ratio = torch.tensor([[1.2, 1.8, 1.0], [0.4, 1.0, 1.0]], dtype=torch.float64)
    made = Learner(CJGRPO(epochs=1, kl_coef=0.0), TablePolicy(OLD + ratio.log()))
    made.update(batch().with_extra(when=WHEN))
    assert_close(made.metrics["loss/policy"], -0.1375, rtol=0, atol=1e-10)
    expected = torch.tensor([-0.075, 0.0, -0.0625, 0.0, 0.125, 0.0], dtype=torch.float64)
    assert_close(made.gradient, expected, rtol=0, atol=1e-10)


def test_one_token_a_pass_is_grpo_without_the_spread() -> None:
    # Rewards 1, 0: std = 1/√2, so GRPO's advantages are CJ-GRPO's over (1/√2 + 1e-4), and so are its losses.
    table = OLD + torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 10
    ours, theirs = Learner(CJGRPO(epochs=1, kl_coef=0.0, clip=0.2), TablePolicy(table)), Learner(
        GRPO(kl_coef=0.0), TablePolicy(table))
    for learner in (ours, theirs):
        learner.update(batch())
    assert_close(ours.gradient, theirs.gradient * (0.5**0.5 + 1e-4), rtol=0, atol=1e-10)
