"""GRPO-CARE's bonus, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from toy import Learner, TablePolicy, table_groups
from worked import close, learn, ln

from posttrain.methods.groups.grpo import GRPO
from posttrain.methods.groups.grpo_care import GRPOCARE

FREE = ln([[0.5]] * 4)  # what the policy itself says plays no part in the bonus


def test_the_bonus_goes_to_the_consistent_among_the_right() -> None:
    # Right: rows 0 to 2 with the anchor's probabilities 0.8, 0.5 and 0.64, mean 0.6467: the first earns ½, the third
    # only with a margin of 0.01.  Row 3 is wrong, however likely.
    batch = table_groups([1, 1, 1, 0], [[1]] * 4)
    anchor = ln([[0.8], [0.5], [0.64], [0.9]])
    close(learn(GRPOCARE(), batch, FREE, anchor)[1].extra["bonus"], [0.5, 0, 0.5, 0])
    metrics, prepared, gradient = learn(GRPOCARE(margin=0), batch, FREE, anchor)
    close(prepared.extra["bonus"], [0.5, 0, 0, 0])
    # R = 1.5, 1, 1, 0: mean 7/8, squared deviations (25 + 1 + 1 + 49) / 64 = 19/16, over 3: std √(19/48).
    credit = torch.tensor([5, 1, 1, -7], dtype=torch.float64) / 8 / (math.sqrt(19 / 48) + 1e-4)
    close(prepared.credit[:, 0], credit)
    close(gradient[:, 0], -credit / 4)
    close(metrics["bonus"], 0.5 / 4)


def test_confidence_is_of_the_last_decisions_and_bounded() -> None:
    # k = 2 and a tool's token before the last: √(0.5 · 0.08) = 0.2.  One token alone: 0.3.  A sure answer: 0.95.
    batch = table_groups([1, 1, 1], [[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0]])
    anchor = ln([[0.9, 0.5, 0.1, 0.08], [0.3, 1, 1, 1], [0.99, 1, 1, 1]])
    _, prepared, _ = learn(GRPOCARE(answer_length=2), batch, ln([[0.5] * 4] * 3), anchor)
    close(prepared.extra["confidence"], [0.2, 0.3, 0.95])


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_equal_confidence_changes_no_group_of_equals(reward: float) -> None:
    # All right: everyone has 1.5.  All wrong: nobody earns anything.
    _, prepared, gradient = learn(GRPOCARE(), table_groups([reward] * 4, [[1]] * 4), FREE, FREE)
    close(prepared.extra["bonus"], [0.5 * reward] * 4)
    assert (gradient == 0).all()


def test_the_anchor_follows_the_policy() -> None:
    # From (0, 0) a step of AdamW leads to −0.01 and +0.01 or so; the anchor goes a quarter of the way from where it is.
    policy, anchor = TablePolicy(torch.zeros(2, 1).double()), TablePolicy(torch.full((2, 1), -1.0).double())
    for rate in (0.25, 0.0):
        before = anchor.table.detach().clone()
        Learner(GRPOCARE(anchor_rate=rate), policy, anchor=anchor).update(table_groups([0, 1], [[1]] * 2))
        close(anchor.table.detach(), before + rate * (policy.table.detach() - before))
    assert (policy.table.detach() != 0).all()


def test_without_a_bonus_the_first_gradient_is_grpo_s() -> None:
    batch, logp = table_groups([1, 1, 0.3, 0], [[1, 1], [1, 0], [1, 1], [1, 1]]), ln([[0.5, 0.1]] * 4)
    close(learn(GRPOCARE(bonus=0), batch, logp, logp)[2], learn(GRPO(kl_coef=0), batch, logp)[2])
