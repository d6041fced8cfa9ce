"""BNPO: what the fitted Beta density divides by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.methods.groups.bnpo import BNPO


def credit(reward: Sequence[float], group: Sequence[int], max_weight: float = 1e6) -> list[float]:
    batch = table_groups(reward, [[1]] * len(reward), group=group)
    learner = Learner(BNPO(max_weight=max_weight), TablePolicy(torch.zeros(len(reward), 1).double()))
    column: list[float] = learner.update(batch).credit[:, 0].tolist()
    return column


def test_one_prompt_is_reinforce_with_the_group_s_mean() -> None:
    # No variance between prompts: α = β = 1, density 1.  p = 1/4.
    assert credit([0, 0, 1, 0], [0] * 4) == pytest.approx([-0.25, -0.25, 0.75, -0.25], rel=1e-10)


def test_success_rates_that_make_it_grpo_times_an_eighth_of_pi() -> None:
    # Rates ¼, ½, ¾: m = ½, v = (1/16 + 1/16) / 2 = 1/16, c = ¼ · 16 − 1 = 3, a = b = 3/2, α = β = 3/2.
    # Beta(p; 3/2, 3/2) = 8/π √(p (1 − p)), so Â = π/8 (r − p) / √(p (1 − p)):
    #   p = ¼ and ¾: √(3/16) = √3/4;   p = ½: √¼ = ½.
    rewards = [1, 0, 0, 0, 1, 0, 1, 0, 1, 1, 1, 0]
    third, half = math.pi / 8 / (math.sqrt(3) / 4), math.pi / 8 / 0.5
    expected = [0.75 * third, *[-0.25 * third] * 3, *[0.5 * half, -0.5 * half] * 2, *[0.25 * third] * 3, -0.75 * third]
    assert credit(rewards, [0] * 4 + [1] * 4 + [2] * 4) == pytest.approx(expected, rel=1e-10)


def test_a_skewed_fit() -> None:
    # Rates 1/2 and 0 (two prompts): m = ¼, v = 2 (1/4)² / 1 = 1/8, c = 3/16 · 8 − 1 = ½, a = 1/8, b = 3/8,
    # α = 1 + 1/24, β = 1 + 1/8.  At p = ½ the density is Γ(α + β) / (Γ(α) Γ(β)) · 2^(2 − α − β), 2 − α − β = −1/6.
    alpha, beta = 25 / 24, 9 / 8
    density = math.gamma(alpha + beta) / math.gamma(alpha) / math.gamma(beta) * 2 ** (-1 / 6)
    assert credit([1, 0, 0, 0], [0, 0, 1, 1]) == pytest.approx([0.5 / density, -0.5 / density, 0, 0], rel=1e-10)


def test_the_weight_is_bounded() -> None:
    # The weight at p = ½ above is near 1; a bound of 0.1 takes its place.  Rewards beyond [0, 1] count as 0 or 1.
    assert credit([7, -3, 0, 0], [0, 0, 1, 1], max_weight=0.1) == pytest.approx([0.05, -0.05, 0, 0], rel=1e-10)


def test_saturated_prompts_are_silent() -> None:
    batch = table_groups([1, 1, 0, 0, 1, 0], [[1]] * 6, group=[0, 0, 1, 1, 2, 2])
    method = BNPO()
    learner = Learner(method, TablePolicy(torch.zeros(6, 1).double()))
    prepared = learner.update(batch)
    assert method.silent(prepared).tolist() == [True] * 4 + [False] * 2
    assert_close(learner.gradient, -prepared.credit[:, 0] / 6, rtol=1e-10, atol=1e-12)
