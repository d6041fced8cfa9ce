"""DNO's regression onto win rates, worked by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from toy import Learner, TablePolicy, table_groups
from worked import close, f64, ln

from posttrain.core import Groups
from posttrain.methods.preference.cdpo import CDPO
from posttrain.methods.preference.dno import DNO, win_rate


def learner(method: DNO, batch: Groups, logp: Tensor, anchor: Tensor) -> Learner:
    made = Learner(method, TablePolicy(logp, (3, 2) if len(batch) == 5 else ()), anchor=TablePolicy(anchor))
    made.update(batch)
    return made


def test_win_rates() -> None:
    # Rewards 3, 1, 1: 3 beats both; the equals lose to it and tie with each other: (0 + ½) / 2.  A row alone has 0.
    close(win_rate(f64([3, 1, 1, 8, -2, 5]), torch.tensor([1, 1, 1, 0, 0, 7])), [1, 0.25, 0.25, 1, 0, 0])


def test_one_pair_by_hand() -> None:
    # Win rates 1 and 0: the target is σ(1) = p.  h = ln 4 and 0, η = 1/2: m = ln 2, σ(m) = 2/3.
    # L = −p ln(2/3) − (1 − p) ln(1/3), dL/dh_1 = η (2/3 − p).
    p = 1 / (1 + math.exp(-1))
    made = learner(DNO(eta=0.5), table_groups([7, 2], [[1]] * 2), ln([[0.4], [0.3]]), ln([[0.1], [0.3]]))
    close(made.metrics["loss/policy"], -p * math.log(2 / 3) - (1 - p) * math.log(1 / 3))
    close(made.gradient, [0.5 * (2 / 3 - p), -0.5 * (2 / 3 - p)])


def test_rests_at_the_soft_policy_iteration() -> None:
    # log π = log π_t + r / η + c for any c of a prompt.  Rewards 2, 1, 0: r = 1, ½, 0; equal ones have ½ each.
    anchor, c = f64([[-1], [-2], [-0.5], [-3], [-1]]), f64([[0.3], [0.3], [0.3], [-1], [-1]])
    batch = table_groups([2, 1, 0, 4, 4], [[1]] * 5, group=[0, 0, 0, 1, 1])
    made = learner(DNO(eta=0.2), batch, anchor + f64([[1], [0.5], [0], [0.5], [0.5]]) / 0.2 + c, anchor)
    close(made.gradient, [0] * 5)


def test_two_answers_are_cdpo_on_the_round_s_start() -> None:
    # The target σ(1) for the better of two is a label that is wrong with probability σ(−1).
    batch = table_groups([1.0, 0.0, 3.0, 9.0], [[1, 1]] * 4, group=[0, 0, 1, 1])
    logp, anchor = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cdpo = Learner(CDPO(beta=0.3, flipped=1 / (1 + math.e)), TablePolicy(logp), TablePolicy(anchor))
    cdpo.update(batch)
    close(learner(DNO(eta=0.3), batch, logp, anchor).gradient, cdpo.gradient)


def test_a_round_s_end_makes_the_policy_its_own_anchor() -> None:
    batch, start = table_groups([1, 0], [[1]] * 2), f64([[-1], [-2]])
    made = learner(DNO(round_steps=2), batch, start, start)
    close(made.models.anchor.module[0].detach(), start)
    made.update(batch)
    assert torch.equal(made.models.anchor.module[0], made.models.policy.module[0])
    assert made.models.state["steps_left"] == 2
