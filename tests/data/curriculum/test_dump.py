"""DUMP's bounds, worked by hand."""

from __future__ import annotations

import math

import pytest

from posttrain.core import Arm, Outcome
from posttrain.data.curriculum.dump import DUMP

A, B = Arm("a"), Arm("b")


def outcome(arm: Arm, *advantages: float) -> Outcome:
    return Outcome(arm, (0.0,) * len(advantages), advantages, ("",) * len(advantages))


def test_bounds_after_one_step() -> None:
    # n(a) = 3, n(b) = 1, N = 4.  The window of 2 keeps a's last two: L(a) = (¼ + ¾) / 2 = ½; L(b) = 0.
    # UCB(a) = ½ + √(2 ln 5 / 4),  UCB(b) = √(2 ln 5 / 2);  τ = ½.
    dump = DUMP(learnability_window=2, ucb_temperature=0.5)
    state = dump.initial_state([A, B])
    assert dump.probabilities(state, [A, B]) == [0.5, 0.5]  # ln 1 = 0: nothing tells them apart yet
    dump.learn(state, [outcome(A, 1.0, 0.25), outcome(B, 0.0), outcome(A, 0.75)])
    bounds = 0.5 + math.sqrt(math.log(5) / 2), math.sqrt(math.log(5))
    expected = 1 / (1 + math.exp((bounds[1] - bounds[0]) / 0.5))
    assert dump.probabilities(state, [A, B])[0] == pytest.approx(expected, abs=1e-12)


def test_equal_advantages_favour_what_was_seldom_drawn() -> None:
    dump = DUMP()
    state = dump.initial_state([A, B])
    dump.learn(state, [outcome(A, *[0.5] * 9), outcome(B, 0.5)])
    first, second = dump.probabilities(state, [A, B])
    assert second > 0.99 > first


def test_with_many_answers_only_the_advantages_count() -> None:
    dump = DUMP(ucb_temperature=0.1)
    state = {"recent": {"a": [0.3], "b": [0.2]}, "answers": {"a": 10**12, "b": 10**12}}
    assert dump.probabilities(state, [A, B])[0] == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-5)
