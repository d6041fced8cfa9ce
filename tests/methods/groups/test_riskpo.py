"""RiskPO: risk of a bundle's score, in expectation over the papers that a completion can be part of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from toy import Learner, TablePolicy, table_groups

from posttrain.core.errors import UserError
from posttrain.methods.groups.riskpo import RiskPO


def learner_of(rows: int, **settings: Any) -> Learner:
    return Learner(RiskPO(**settings), TablePolicy(torch.zeros(rows, 1).double()))


def credit(learner: Learner, reward: Sequence[float], group: Sequence[int]) -> list[float]:
    column: list[float] = learner.update(table_groups(reward, [[1]] * len(reward), group=group)).credit[:, 0].tolist()
    return column


def test_one_prompt_in_a_bundle() -> None:
    # Rewards 0, 0, 0, 1: P(S ≤ 0) = ¾, so q_d (0.2) = 0 and q_u (0.9) = 1; var = ¼, both stds ½.
    # S = 0: no tail, middle (0 − 1) / 0.7, over w + 1 = 2.5, over ½ · ½: −4 / 1.75.  S = 1: 0.
    found = credit(learner_of(4, bundle=1), [0, 0, 0, 1], [0] * 4)
    assert found == pytest.approx([-4 / 1.75] * 3 + [0], rel=1e-10)


def test_two_prompts_in_a_bundle() -> None:
    # Both have rewards 0, 1: S = 0, 1, 2 with probabilities ¼, ½, ¼.  Levels 0.5 and 0.9: q_d = 1, q_u = 2.  w = 1.
    #   S = 0: tail −1 / 0.5 = −2, middle (1 − 2) / 0.4 = −2.5 (clipped from below to q_d): (−2 − 2.5) / 2 = −2.25
    #   S = 1: tail 0, middle −2.5: −1.25;   S = 2: 0
    # A completion of reward 0 meets S = 0 or 1: −1.75; of reward 1, S = 1 or 2: −0.625.
    # Std S = √(½ + ½) = 1, std r = √½: times √2.
    found = credit(learner_of(4, bundle=2, low=0.5, tail_weight=1), [0, 1, 0, 1], [0, 0, 1, 1])
    assert found == pytest.approx([-1.75 * math.sqrt(2), -0.625 * math.sqrt(2)] * 2, rel=1e-10)


def test_bundles_do_not_see_each_other() -> None:
    # As the first test, twice, with the quantiles of both bundles together: P(S ≤ 0) = ¾ again.
    found = credit(learner_of(8, bundle=1), [0, 0, 0, 1] * 2, [0] * 4 + [1] * 4)
    assert found == pytest.approx(([-4 / 1.75] * 3 + [0]) * 2, rel=1e-10)


def test_a_short_bundle_counts_as_a_full_one() -> None:
    # As in the test before, and a third prompt alone: S = 0 and 2, std S = 2 √½ = √2.  Papers of both bundles together:
    # P(S ≤ 0) = 3/8, P(S ≤ 1) = 5/8, so q_d = 1 and q_u = 2 again.  Â = −2.25 / (√2 · √½) and 0.
    found = credit(learner_of(6, bundle=2, low=0.5, tail_weight=1), [0, 1] * 3, [0, 0, 1, 1, 2, 2])
    assert found == pytest.approx([-1.75 * math.sqrt(2), -0.625 * math.sqrt(2)] * 2 + [-2.25, 0], rel=1e-10)


def test_quantiles_are_tracked() -> None:
    # First batch as in the second test: q_d = 1, q_u = 2.  Then S = 2 always: no paper lies below either,
    # q_d = 1 + 0.1 · 0.5, q_u = 2 + 0.1 · 0.9.  Then S = 0 always: all do, q_d = 1.05 − 0.05, q_u = 2.09 − 0.01.
    learner = learner_of(4, bundle=2, low=0.5)
    states = []
    for reward in ([0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]):
        credit(learner, reward, [0, 0, 1, 1])
        states.append((learner.models.state["q_low"], learner.models.state["q_high"]))
    assert states == [pytest.approx((1, 2)), pytest.approx((1.05, 2.09)), pytest.approx((1.0, 2.08))]


def test_the_whole_range_without_a_tail_is_the_mean() -> None:
    # Levels 0 and 1, w = 0: A = (S − max S) / std S, linear in S.  Rewards 0, ¼, 1: Â = (r − 1) / var, and
    # var = ((5/12)² + (1/6)² + (7/12)²) / 2 = (25 + 4 + 49) / 288 = 13/48.
    found = credit(learner_of(3, low=0, high=1, tail_weight=0), [0, 0.25, 1], [0] * 3)
    assert found == pytest.approx([-48 / 13, -36 / 13, 0], rel=1e-10)


def test_advantages_are_never_positive() -> None:
    reward = torch.rand(24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    learner = learner_of(24, bundle=2)
    for _ in range(3):
        assert max(credit(learner, reward.tolist(), [i // 4 for i in range(24)])) <= 0


def test_clipping() -> None:
    # One prompt, rewards 0, 0, 0, 1 as in the first test: Â = −a three times, a = 4 / 1.75, and 0.  Ratios 0.5 (held at
    # 0.8), 1 and 1.5 (not held): L = (0.8 + 1 + 1.5) a / 4, dL/dlog π = ρ a / 4 where not held.
    logp = torch.tensor([[0.5], [1.0], [1.5], [1.0]], dtype=torch.float64).log()
    learner = Learner(RiskPO(bundle=1), TablePolicy(logp))
    learner.update(table_groups([0, 0, 0, 1], [[1]] * 4, logp_old=torch.zeros_like(logp)))
    a = 4 / 1.75
    assert learner.metrics["loss/policy"] == pytest.approx(3.3 * a / 4, rel=1e-10)
    assert learner.gradient.tolist() == pytest.approx([0, a / 4, 1.5 * a / 4, 0], rel=1e-10)


def test_levels_are_in_order() -> None:
    with pytest.raises(UserError, match=r"low = 0\.9"):
        RiskPO(low=0.9, high=0.5)
