"""Intervals against published values and by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.evaluate.intervals import Z, interval, paired_interval


@pytest.mark.parametrize(("right", "n", "low", "high"), [
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (Wilson's score without correction).
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718),
])
def test_wilson(right: int, n: int, low: float, high: float) -> None:
    assert interval([1.0] * right + [0.0] * (n - right)) == pytest.approx((low, high), abs=5e-5)


def test_wilson_by_hand() -> None:
    # n = 4, p = ½: centre (½ + Z²/8) / (1 + Z²/4) = ½; half Z / (1 + Z²/4) · √(1/16 + Z²/64) = Z / (4 √(1 + Z²/4)) · …
    # = Z / (1 + Z²/4) · ¼ √(1 + Z²/4) = Z / (4 √(1 + Z²/4)).
    half = Z / (4 * math.sqrt(1 + Z**2 / 4))
    assert interval([1, 0, 0, 1]) == pytest.approx((0.5 - half, 0.5 + half))


def test_no_scores_say_nothing() -> None:
    assert interval([]) == (0.0, 1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_holds_the_mean_and_mirrors(scores: list[float]) -> None:
    low, high = interval(scores)
    mean = sum(scores) / len(scores)
    assert 0 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1
    assert interval([1 - s for s in scores]) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_paired_by_hand() -> None:
    # Differences 1, 1, 0, with one gain and one loss added: 1, −1, 1, 1, 0.  Mean 2/5;
    # Σ (d − 2/5)² = 3 · 0.36 + 1.96 + 0.16 = 3.2; half = Z √(3.2 / 25).
    half = Z * math.sqrt(3.2) / 5
    assert paired_interval([0, 0, 1], [1, 1, 1]) == pytest.approx((0.4 - half, min(1.0, 0.4 + half)))


def test_paired_never_passes_agreement_for_certainty() -> None:
    # 1, −1 and n zeros: mean 0, half Z √2 / (n + 2).
    half = Z * math.sqrt(2) / 12
    assert paired_interval([1.0] * 10, [1.0] * 10) == pytest.approx((-half, half))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=30))
def test_paired_turns_around_with_its_arguments(pairs: list[tuple[float, float]]) -> None:
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    low, high = paired_interval(before, after)
    assert -1 <= low <= high <= 1
    assert paired_interval(after, before) == pytest.approx((-high, -low), abs=1e-12)


def test_paired_refuses_scores_of_different_problems() -> None:
    with pytest.raises(AssertionError):
        paired_interval([1.0], [1.0, 0.0])
