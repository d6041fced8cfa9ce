"""G²RPO: normal quantiles of ranks.  From tables: Φ⁻¹(¾) = 0.674489750196082, Φ⁻¹(5/6) = 0.967421566101701."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.methods.groups.g2rpo_openvlthinkerv2 import G2RPOOpenVLThinkerV2

QUARTILE, SIXTH = 0.674489750196082, 0.967421566101701


def credit(reward: Sequence[float], group: Sequence[int] | None = None) -> list[float]:
    batch = table_groups(reward, [[1]] * len(reward), group=group)
    learner = Learner(G2RPOOpenVLThinkerV2(), TablePolicy(torch.zeros(len(reward), 1).double()))
    column: list[float] = learner.update(batch).credit[:, 0].tolist()
    return column


def test_ranks_within_each_group() -> None:
    # Two rewards stand at (½ ∓ ¼), three at 1/6, ½, 5/6.
    found = credit([0, 9, 1e6, 8, -3], group=[7, 2, 7, 2, 2])
    assert found == pytest.approx([-QUARTILE, SIXTH, QUARTILE, 0, -SIXTH], rel=1e-10, abs=1e-12)


def test_ties_share_their_quantiles() -> None:
    # 0, 0, 1: the zeros hold 1/6 and ½, so each gets −SIXTH / 2.  0, 1, 1, 0: quantiles 1/8, 3/8, 5/8, 7/8 in pairs.
    assert credit([0, 0, 1]) == pytest.approx([-SIXTH / 2, -SIXTH / 2, SIXTH], rel=1e-10)
    found = credit([0, 1, 1, 0])
    assert found[1] == found[2] == pytest.approx(-found[0], rel=1e-10)


def test_only_the_order_counts() -> None:
    reward = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    group = [i % 3 for i in range(12)]
    assert credit(reward.tolist(), group) == credit((5 * reward).exp().tolist(), group)
    assert credit((-reward).tolist(), group) == pytest.approx([-a for a in credit(reward.tolist(), group)], rel=1e-10)
    assert sum(credit(reward.tolist(), group)) == pytest.approx(0, abs=1e-12)


def test_equal_rewards_teach_nothing() -> None:
    assert credit([0.3, 0.3, 0.3, 1], group=[0, 0, 0, 1]) == [0, 0, 0, 0]


def test_gradient() -> None:
    # At ratio 1: −Â / (rows · |y|).
    learner = Learner(G2RPOOpenVLThinkerV2(), TablePolicy(torch.zeros(2, 2).double()))
    learner.update(table_groups([0, 1], [[1, 0], [1, 1]]))
    expected = torch.tensor([QUARTILE / 2, 0, -QUARTILE / 4, -QUARTILE / 4], dtype=torch.float64)
    assert_close(learner.gradient, expected, rtol=1e-10, atol=1e-12)
