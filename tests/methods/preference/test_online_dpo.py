"""Online DPO against numbers worked by hand."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.preference.dpo import DPO
from posttrain.methods.preference.online_dpo import OnlineDPO


def test_only_the_best_and_the_worst_are_compared() -> None:
    # Rewards 3, 1, 2: rows 0 over 1.  h = ln 4, −ln 4 and β = 1/2: m = ln 4, L = −ln(4/5), dL/dh = ∓1/2 · 1/5.
    batch = table_groups([3.0, 1.0, 2.0], [[1]] * 3)
    metrics, _, gradient = learn(OnlineDPO(beta=0.5), batch, ln([[0.4], [0.1], [0.7]]), ln([[0.1], [0.4], [0.1]]))
    close(metrics["loss/policy"], -math.log(4 / 5))
    close(metrics["silent"], 1 / 3)
    close(gradient[:, 0], [-0.1, 0.1, 0])


def test_equals_share_one_pair() -> None:
    # Rewards 1, 1, 0, 0, 0: six pairs of weight 1/6.  A second prompt has one pair, a third none: two choices in all.
    # At π = π_ref dL/dh is ∓β/2 / 2, shared: −1/8 for each of two bests, 1/12 for each of three worsts, β = 1.
    reward, group = [1.0, 1.0, 0.0, 0.0, 0.0, 0.2, 0.9, 1.0], [0, 0, 0, 0, 0, 1, 1, 2]
    logp = torch.full((8, 1), -1.0, dtype=torch.float64)
    for sizes in ((), (5, 2)):
        metrics, _, gradient = learn(OnlineDPO(beta=1), table_groups(reward, [[1]] * 8, group=group), logp, logp, sizes)
        close(metrics["loss/policy"], math.log(2))
        close(gradient[:, 0], f64([-1 / 8, -1 / 8, 1 / 12, 1 / 12, 1 / 12, 1 / 4, -1 / 4, 0]))


def test_two_answers_are_dpo() -> None:
    batch = table_groups([1.0, 0.0, -1.0, 2.0], [[1, 1]] * 4, group=[0, 0, 1, 1])
    logp, ref = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(learn(OnlineDPO(), batch, logp, ref)[2], learn(DPO(), batch, logp, ref)[2])
