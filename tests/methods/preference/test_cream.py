"""CREAM's consistency and its two-sided loss, worked by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from toy import Learner, TablePolicy, table_groups
from worked import close, f64, ln

from posttrain.methods.preference.cream import CREAM, agreement
from posttrain.methods.preference.online_dpo import OnlineDPO

MASK = [[1]] * 3


def learner(method: CREAM, logp: Tensor, ref: Tensor, anchor: Tensor) -> Learner:
    return Learner(method, TablePolicy(logp), TablePolicy(ref), anchor=TablePolicy(anchor))


def test_agreement() -> None:
    # Ranks 1 2 3 against 1 3 2: two pairs concordant, one discordant: τ = 1/3, (1 + τ) / 2 = 2/3.
    # Group 9: one pair, tied on one side: ½.  Group 4 has one row and does not count.  Mean 7/12.
    x, y = f64([1, 2, 3, 5, 5, 0]), f64([1, 3, 2, 7, 7 + 1e-9, 0])
    close(agreement(x, y, torch.tensor([0, 0, 0, 9, 9, 4])), 7 / 12)
    close(agreement(x[:3], -x[:3], torch.zeros(3).long()), 0)
    close(agreement(x[:3], x[:3] ** 3, torch.zeros(3).long()), 1)


def test_one_prompt_by_hand() -> None:
    # π = 0.4, 0.1, 0.2 ranks rows 0, 2, 1; the anchor 0.4, 0.2, 0.1 disagrees on one pair of three: C = 2/3.
    # h = ln 4, −ln 4 and β = ½: m = ln 4.  L = −⅔ ln(4/5) − ⅓ ln(1/5); dL/dm = σ(m) − C = 4/5 − 2/3 = 2/15, β that.
    # The rewards say the opposite and are not read.
    made = learner(CREAM(beta=0.5), ln([[0.4], [0.1], [0.2]]), ln([[0.1], [0.4], [0.2]]), ln([[0.4], [0.2], [0.1]]))
    made.update(table_groups([0.0, 5.0, 9.0], MASK))
    close(made.metrics["consistency"], 2 / 3)
    close(made.metrics["loss/policy"], -2 / 3 * math.log(0.8) - 1 / 3 * math.log(0.2))
    close(made.gradient, [1 / 15, -1 / 15, 0])


def test_full_agreement_is_online_dpo_on_its_own_ranking() -> None:
    logp, ref = ln([[0.4], [0.1], [0.2]]), ln([[0.3], [0.4], [0.2]])
    made = learner(CREAM(), logp, ref, 2 * logp)
    made.update(table_groups([0.0, 0.0, 0.0], MASK))
    other = Learner(OnlineDPO(), TablePolicy(logp), TablePolicy(ref))
    other.update(table_groups([2.0, 0.0, 1.0], MASK))
    close(made.gradient, other.gradient)


def test_half_agreement_teaches_nothing_at_the_reference() -> None:
    logp = ln([[0.4], [0.1]])
    made = learner(CREAM(), logp, logp, torch.zeros_like(logp))
    made.update(table_groups([0.0, 1.0], MASK[:2]))
    close(made.gradient, [0, 0])


def test_the_earlier_self_is_replaced_when_a_round_is_over() -> None:
    logp, ref, start = ln([[0.4], [0.1], [0.2]]), ln([[0.3], [0.4], [0.2]]), ln([[0.5], [0.2], [0.1]])
    made = learner(CREAM(round_steps=2), logp, ref, start)
    anchor, policy = made.models.anchor.module[0], made.models.policy.module[0]
    made.update(table_groups([0.0, 0.0, 0.0], MASK))
    close(anchor.detach(), start)
    made.update(table_groups([0.0, 0.0, 0.0], MASK))
    assert torch.equal(anchor, policy)
    assert made.models.state["steps_left"] == 2
