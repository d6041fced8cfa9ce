"""Knapsack-RL: the shares that it gives are the best there are, by brute force, and its edges by hand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.core import Arm, Outcome, State
from posttrain.data.curriculum.knapsack_rl import KnapsackRL, value

ARMS = [Arm(str(i)) for i in range(6)]


def budgets(rates: list[float | None], samples: int, **options: int | float) -> list[int]:
    state = State({arm.name: p for arm, p in zip(ARMS, rates, strict=False) if p is not None})
    return KnapsackRL(**options).budgets(state, ARMS[: len(rates)], samples)  # type: ignore[arg-type]


def test_value() -> None:
    # p = ½, N = 3: (1 − 2/8) · ½ · ¼ = 3/32.
    assert value(3, 0.5) == pytest.approx(3 / 32)
    assert value(1, 0.3) == pytest.approx(0)  # one answer is always alike


@given(st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.7, 0.9]), min_size=1, max_size=3), st.integers(2, 5))
def test_no_other_shares_are_worth_more(rates: list[float], samples: int) -> None:
    total, high = samples * len(rates), 7
    found = budgets(list(rates), samples, most_answers=high)
    assert sum(found) == total
    every = [n for n in itertools.product(range(2, high + 1), repeat=len(rates)) if sum(n) == total]
    best = max(sum(map(value, n, rates)) for n in every)
    assert sum(map(value, found, rates)) == pytest.approx(best, abs=1e-12)


def test_equal_prompts_get_equal_shares() -> None:
    assert budgets([0.3] * 4, 6) == [6] * 4
    assert budgets([None] * 4, 6) == [6] * 4


def test_solved_and_unsolved_prompts_give_up_their_answers() -> None:
    # Three prompts of 8: the solved and the unsolved one keep 2 each; all else is not enough for so sure a signal.
    assert budgets([1.0, 0.5, 0.0], 8, signal_chance=0.99999999) == [2, 20, 2]
    # For a chance of 0.9 at p = ½, ln 0.1 / ln ½ = 3.3: 3 answers are enough, and 17 go to the unsolved one.
    assert budgets([1.0, 0.5, 0.0], 8) == [2, 3, 19]
    assert budgets([1.0, 0.5], 8) == [13, 3]  # to the solved one where none is unsolved
    assert budgets([1.0, 0.0, 0.0], 8) == [2, 11, 11]
    assert budgets([1.0, None], 8) == [8, 8]


def test_bounds() -> None:
    assert budgets([0.05, 0.5], 8, most_answers=9) == [9, 7]  # the rare success would take more
    assert budgets([0.5, 0.0], 1) == [1, 1]  # a budget below the least


def test_the_rate_is_that_of_the_last_visit() -> None:
    state = State()
    for rewards in ((1.0, 1.0), (0.0, 1.0, 0.0, 0.0)):
        KnapsackRL().learn(state, [Outcome(ARMS[0], rewards, (0.0,) * len(rewards), ("",) * len(rewards))])
    assert state == {"0": 0.25}
