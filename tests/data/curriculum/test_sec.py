"""SEC's average of payoffs and its softmax, worked by hand."""

from __future__ import annotations

import math

import pytest

from posttrain.core import Arm, Outcome, State
from posttrain.data.curriculum.sec import SEC

A, B = Arm("a"), Arm("b")


def outcome(arm: Arm, *advantages: float) -> Outcome:
    return Outcome(arm, (0.0,) * len(advantages), advantages, ("",) * len(advantages))


def test_two_steps() -> None:
    # α = ¼.  Step 1: a pays mean(1, 0, ½, ½) = ½ over its two prompts, so Q(a) = ⅛; b was not drawn.
    # Step 2: a pays 0: Q(a) = ⅛ − ¼ · ⅛ = 3/32;  b pays 1: Q(b) = ¼.
    # p(b) = 1 / (1 + exp((3/32 − ¼) / τ)) with τ = ½, so exp(−5/16).
    sec, state = SEC(arm_rate=0.25, arm_temperature=0.5), State()
    assert sec.probabilities(state, [A, B]) == [0.5, 0.5]
    sec.learn(state, [outcome(A, 1.0, 0.0), outcome(A, 0.5, 0.5)])
    assert state == {"a": 0.125}
    sec.learn(state, [outcome(B, 1.0), outcome(A, 0.0)])
    assert state == {"a": 3 / 32, "b": 0.25}
    assert sec.probabilities(state, [A, B])[1] == pytest.approx(1 / (1 + math.exp(-5 / 16)), abs=1e-12)


def test_rate_one_keeps_the_last_payoff_and_a_hot_softmax_is_even() -> None:
    state = State()
    for payoff in (0.75, 0.25):
        SEC(arm_rate=1.0).learn(state, [outcome(A, payoff)])
    assert state == {"a": 0.25}
    assert SEC(arm_temperature=1e9).probabilities(state, [A, B]) == pytest.approx([0.5, 0.5], abs=1e-9)


def test_the_payoff_is_largest_where_half_is_right() -> None:
    # k of n answers are right: mean |r − k/n| = (k (1 − k/n) + (n − k) k/n) / n = 2 p (1 − p).
    n, paid = 8, []
    for k in range(n + 1):
        rewards, state = [1.0] * k + [0.0] * (n - k), State()
        SEC(arm_rate=1.0).learn(state, [outcome(A, *(abs(r - k / n) for r in rewards))])
        paid.append(state["a"])
        assert paid[-1] == pytest.approx(2 * (k / n) * (1 - k / n), abs=1e-12)
    assert paid.index(max(paid)) == n // 2
