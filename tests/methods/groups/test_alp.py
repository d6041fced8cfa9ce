"""ALP: the price of a token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups
from posttrain.methods.groups.alp import ALP
from posttrain.methods.groups.grpo import GRPO


def batch_of(reward: Sequence[float], lengths: Sequence[int], group: Sequence[int] | None = None) -> Groups:
    return table_groups(reward, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None], group=group)


def credit(method: ALP | GRPO, batch: Groups) -> list[float]:
    learner = Learner(method, TablePolicy(torch.zeros(batch.mask.shape).double()))
    column: list[float] = learner.update(batch).credit[:, 0].tolist()
    return column


def test_half_solved() -> None:
    # p = ½, β = 0.1: a token costs 0.05.  r' = 0.95, 0.9, −0.05, −0.1, mean 0.425, deviations ±0.525 and ±0.475.
    # Variance 2 (0.525² + 0.475²) / 3 = 1.0025 / 3.
    scale = math.sqrt(1.0025 / 3) + 1e-4
    found = credit(ALP(token_cost=0.1), batch_of([1, 1, 0, 0], [1, 2, 1, 2]))
    assert found == pytest.approx([0.525 / scale, 0.475 / scale, -0.475 / scale, -0.525 / scale], rel=1e-10)


def test_a_never_solved_prompt_counts_as_solved_once() -> None:
    # K = 2: 1/K = ½, a token costs 0.05: r' = −0.05, −0.15, deviations ±0.05, std √(2 · 0.0025) = √0.005.
    a = 0.05 / (math.sqrt(0.005) + 1e-4)
    assert credit(ALP(token_cost=0.1), batch_of([0, 0], [1, 3])) == pytest.approx([a, -a], rel=1e-10)


def test_the_price_grows_with_the_solve_rate() -> None:
    # Solved always and in one of two, lengths 1 and 3, β = 1e-3: deviations of r' within "always" are β p = 1e-3, their
    # std √2 e-3.  In the other the right answer is the longer: r' = 1 − 3 β/2 and −β/2, deviations ±(½ − β/2).
    always = 1e-3 / (math.sqrt(2) * 1e-3 + 1e-4)
    half = 0.4995 / (math.sqrt(2) * 0.4995 + 1e-4)
    found = credit(ALP(token_cost=1e-3), batch_of([1, 1, 0, 1], [1, 3, 1, 3], group=[0, 0, 1, 1]))
    assert found == pytest.approx([always, -always, -half, half], rel=1e-10)


def test_without_a_price_it_is_grpo() -> None:
    batch = batch_of([1, 0, 0.5, 1, 0, 0], [1, 2, 3, 1, 2, 3], group=[0, 0, 0, 1, 1, 1])
    assert credit(ALP(token_cost=0), batch) == pytest.approx(credit(GRPO(kl_coef=0), batch), rel=1e-12)


def test_gradient() -> None:
    # As GRPO's: −Â / (rows · |y|).  Only the policy's own tokens count as length: the second of row 1's three does not.
    batch = table_groups([0, 0], [[1, 0, 0], [1, 0, 1]])
    learner = Learner(ALP(token_cost=0.1), TablePolicy(torch.zeros(2, 3).double()))
    learner.update(batch)
    a = 0.025 / (math.sqrt(2) * 0.025 + 1e-4)  # r' = −0.05 and −0.1
    assert learner.gradient.tolist() == pytest.approx([-a / 2, 0, 0, a / 4, 0, a / 4], rel=1e-10)
