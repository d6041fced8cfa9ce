"""How sure a mean is."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z = 1.959963984540054  # of a 95% interval


def interval(scores: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean of independent scores in [0, 1].

    Wilson's score interval, with the mean in the place of the proportion: exact in form for right-or-wrong scores,
    and wider than it need be for partial credit, whose variance is at most p (1 − p).
    """
    n = len(scores)
    if n == 0:
        return 0.0, 1.0
    p = sum(scores) / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean difference after − before on the same problems, scores in [0, 1].

    Wald's with one gain and one loss added (Bonett & Price 2012, for paired proportions), so that a handful of
    problems that all agree does not pass for certainty.
    """
    assert len(before) == len(after), (len(before), len(after))
    differences = [1.0, -1.0, *(b - a for a, b in zip(before, after, strict=True))]
    n = len(differences)
    mean = sum(differences) / n
    half = Z * math.sqrt(sum((d - mean) ** 2 for d in differences) / n / n)
    return max(-1.0, mean - half), min(1.0, mean + half)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean of independent numbers, by Student's t; infinite for fewer than two."""
    mean, half = sum(values) / max(1, len(values)), half_width(values)
    return mean - half, mean + half


def difference_interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """95% interval of mean(after) − mean(before), independent numbers of unequal variance (Welch's t)."""
    difference = sum(after) / len(after) - sum(before) / len(before)
    if min(len(before), len(after)) < 2:
        return -math.inf, math.inf
    a, b = (_variance(values) / len(values) for values in (before, after))
    if a + b == 0:
        return difference, difference
    degrees = (a + b) ** 2 / (a**2 / (len(before) - 1) + b**2 / (len(after) - 1))
    half = student(degrees) * math.sqrt(a + b)
    return difference - half, difference + half


def half_width(values: Sequence[float]) -> float:
    """Of the 95% interval of their mean, by Student's t; infinite for fewer than two."""
    n = len(values)
    return student(n - 1) * math.sqrt(_variance(values) / n) if n > 1 else math.inf


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((x - mean) ** 2 for x in values) / (len(values) - 1)


def student(degrees: float) -> float:
    """The 97.5% point of Student's t."""
    from scipy import stats  # takes a second, and few commands need it

    return float(stats.t.ppf(0.975, degrees))
