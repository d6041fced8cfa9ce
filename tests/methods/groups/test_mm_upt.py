"""MM-UPT: the vote, and that nothing else is the reward."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.methods.groups.mm_upt import MMUPT, majority


def credit(reward: Sequence[float], answer: Sequence[int], group: Sequence[int] | None = None) -> list[float]:
    batch = table_groups(reward, [[1]] * len(answer), group=group, answer=answer)
    learner = Learner(MMUPT(kl_coef=0), TablePolicy(torch.zeros(len(answer), 1).double()))
    column: list[float] = learner.update(batch).credit[:, 0].tolist()
    return column


def test_agreement_with_the_majority_is_the_reward() -> None:
    # Answers 0, 1, 1, 2: r = 0, 1, 1, 0, deviations ½, variance 4 · ¼ / 3.  The given rewards say the opposite.
    a = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    assert credit([1, 0, 0, 1], [0, 1, 1, 2]) == pytest.approx([-a, a, a, -a], rel=1e-10)


def test_groups_vote_apart() -> None:
    # Answer 1 leads overall, but the group of 0, 0, 1 has its own majority: r = 1, 1, 0.
    # Mean ⅔, squared deviations 2/9 + 4/9 = ⅔ over 2: std √⅓.
    scale = math.sqrt(1 / 3) + 1e-4
    found = credit([0] * 6, [0, 1, 0, 1, 1, 1], group=[4, 4, 4, 2, 2, 2])
    assert found == pytest.approx([1 / 3 / scale, -2 / 3 / scale, 1 / 3 / scale, 0, 0, 0], rel=1e-10)


def test_the_lowest_number_wins_a_tie() -> None:
    group = torch.tensor([0, 0, 0, 0, 0, 1, 1])
    assert majority(torch.tensor([3, 1, 1, 3, 0, 7, 5]), group).tolist() == [1] * 5 + [5] * 2


def test_a_unanimous_group_has_no_gradient() -> None:
    method = MMUPT(kl_coef=0)
    batch = table_groups([0, 1, 0, 1], [[1]] * 4, group=[0, 0, 1, 1], answer=[0, 0, 0, 1])
    learner = Learner(method, TablePolicy(torch.zeros(4, 1).double()))
    prepared = learner.update(batch)
    assert method.silent(prepared).tolist() == [True, True, False, False]
    a = 0.5 / (math.sqrt(0.5) + 1e-4)  # r = 1, 0: the tie falls to answer 0
    assert_close(learner.gradient, torch.tensor([0, 0, -a / 4, a / 4], dtype=torch.float64), rtol=1e-10, atol=1e-12)


def test_kl_term() -> None:
    # As GRPO's: log π_ref − log π = log 2, k3 = 1 − log 2, derivative −1, times β / 2.
    learner = Learner(MMUPT(kl_coef=0.3), TablePolicy(torch.zeros(2, 1).double()),
                      TablePolicy(torch.full((2, 1), math.log(2), dtype=torch.float64)))
    learner.update(table_groups([0, 1], [[1], [1]], answer=[0, 0]))
    assert learner.metrics["loss/kl"] == pytest.approx(0.3 * (1 - math.log(2)), rel=1e-10)
    assert_close(learner.gradient, torch.tensor([-0.15, -0.15], dtype=torch.float64), rtol=1e-10, atol=1e-12)
