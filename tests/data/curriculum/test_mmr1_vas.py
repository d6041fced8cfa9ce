"""MMR1-VAS: scores and shares, worked by hand."""

from __future__ import annotations

from random import Random

import pytest

from posttrain.core import Arm, Outcome, State
from posttrain.data.curriculum.mmr1_vas import MMR1VAS, distinct

ARMS = [Arm(str(i)) for i in range(4)]


def outcome(arm: Arm, *rewards: float, texts: tuple[str, ...] = ()) -> Outcome:
    return Outcome(arm, rewards, (0.0,) * len(rewards), texts)


def known() -> State:
    """p = ½, ¼ and 1: OVS ¼, 3/16 and 0.  The fourth was not drawn and counts as their mean, 7/48."""
    state = State()
    MMR1VAS().learn(state, [outcome(ARMS[0], 1, 0), outcome(ARMS[1], 0, 0, 0, 1), outcome(ARMS[2], 1, 1)])
    return state


def test_half_by_variance_half_evenly() -> None:
    # The scores in 48ths: 12, 9, 0, 7, sum 28.  λ = ½: ½ · 12/28 + ½ · ¼, and so on.
    expected = [0.5 * w / 28 + 0.125 for w in (12, 9, 0, 7)]
    assert MMR1VAS().probabilities(known(), ARMS) == pytest.approx(expected, abs=1e-12)
    assert MMR1VAS(varied_share=1).probabilities(known(), ARMS) == pytest.approx([12 / 28, 9 / 28, 0, 0.25])
    assert MMR1VAS(varied_share=0).probabilities(known(), ARMS) == [0.25] * 4


def test_the_even_share_asks_nobody_twice() -> None:
    for seed in range(50):
        drawn = MMR1VAS(varied_share=0.4).draw(known(), ARMS, 6, Random(seed))  # ⌊2.4⌋ = 2 by variance, 4 evenly
        assert ARMS[2] not in drawn[:2]
        assert sorted(drawn[2:]) == ARMS


def test_nothing_varies_so_all_are_alike() -> None:
    state = State()
    MMR1VAS().learn(state, [outcome(arm, 1, 1) for arm in ARMS])
    assert MMR1VAS(varied_share=1).probabilities(state, ARMS) == [0.25] * 4


def test_diversity_counts_different_trigrams() -> None:
    # "a b c d" has abc and bcd, "a b c" has abc, "x y" none: 2 different of 3.
    assert distinct(["a b c d", "a b c", "x y"]) == pytest.approx(2 / 3)
    assert distinct(["", "x y"]) == 0
    vas, state = MMR1VAS(varied_share=1, outcome_weight=1, diversity_weight=0.5), State()
    vas.learn(state, [outcome(ARMS[0], 1, 0, texts=("a b c d", "a b c")), outcome(ARMS[1], 1, 1, texts=("a b c",) * 2)])
    # VPS: ¼ + ½ · ⅔ = 7/12 and 0 + ½ · ½ = ¼ = 3/12.
    assert vas.probabilities(state, ARMS[:2]) == pytest.approx([0.7, 0.3])
