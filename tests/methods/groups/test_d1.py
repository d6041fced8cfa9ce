from __future__ import annotations

import math

import torch
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.methods.groups.d1 import D1

# Group 0: rewards 1, 0 -> Â = ½, −½ (not divided by the spread).  Three tokens in all, so every mean divides by 3.
MASK = [[1, 1], [1, 0]]


def updated(ratios: list[list[float]], kl_coef: float) -> Learner:
    """After one update, with these ρ to both the old policy and the reference."""
    old = torch.full((2, 2), -1.0, dtype=torch.float64)
    table = old + torch.tensor(ratios, dtype=torch.float64).log()
    made = Learner(D1(epochs=1, kl_coef=kl_coef), TablePolicy(table), TablePolicy(old))
    made.update(table_groups([1.0, 0.0], MASK, logp_old=old))
    return made


def test_worked_by_hand() -> None:
    # ρ = 1.2, 1.8 | 0.4:  min(1.2 ½, 1.2 ½) = 0.6;  min(1.8 ½, 1.5 ½) = 0.75;  min(0.4 −½, 0.5 −½) = −0.25
    # L = −(0.6 + 0.75 − 0.25) / 3 = −1.1 / 3;  the gradient passes only where nothing was clipped: −½ · 1.2 / 3 = −0.2.
    made = updated([[1.2, 1.8], [0.4, 1.0]], kl_coef=0.0)
    assert_close(made.metrics["loss/policy"], -1.1 / 3, rtol=0, atol=1e-10)
    assert_close(made.gradient, torch.tensor([-0.2, 0.0, 0.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-10)
    assert_close(made.metrics["clipped"], 2 / 3, rtol=0, atol=1e-10)


def test_the_kl_term_is_one_mean_over_tokens() -> None:
    # ρ to the reference 2, 1 | 1: k3 = ½ − 1 + log 2 at one of three tokens, times β = 0.3.
    made = updated([[2.0, 1.0], [1.0, 1.0]], kl_coef=0.3)
    assert_close(made.metrics["loss/kl"], 0.3 * (math.log(2) - 0.5) / 3, rtol=0, atol=1e-10)
