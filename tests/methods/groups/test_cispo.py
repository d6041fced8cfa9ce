"""CISPO's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import math

from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.cispo import CISPO

# Rewards 0 and 1: mean 1/2, sample standard deviation √(2 · 1/4) = √½, so Â = ∓½ / (√½ + 1e-4).
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def test_fresh_samples_have_weight_one() -> None:
    # The bounds are distances from 1: even narrow ones leave a ratio of 1 alone.  dL/dlog π = −Â / 4 on four tokens.
    batch = table_groups([0, 1], [[1, 0, 0], [1, 1, 1]])
    for method in (CISPO(), CISPO(clip_low=0.1, clip_high=0.2)):
        _, _, gradient = learn(method, batch, ln([[0.5, 1, 1], [0.5, 0.5, 0.5]]))
        close(gradient, [[A / 4, 0, 0], [-A / 4, -A / 4, -A / 4]])


def test_a_clipped_token_still_learns_with_the_bounded_weight() -> None:
    # Range [0.8, 1.5]; ratios ½, 1, 2 under −A and 2 under +A have weights 0.8, 1, 1.5 and 1.5:
    # L = −¼ [ −A (0.8 log ½ + 0 + 1.5 log 2) + 1.5 A log 2 ] = −¼ (−0.7 + 1.5) A log 2 = −0.2 A log 2.
    # dL/dlog π = −¼ w Â: the weight is a constant to the gradient.
    batch = table_groups([0, 1], [[1, 1, 1], [1, 0, 0]], logp_old=f64([[0, 0, 0]] * 2))
    metrics, _, gradient = learn(CISPO(clip_low=0.2, clip_high=0.5), batch, ln([[0.5, 1, 2], [2, 1, 1]]))
    close(metrics["loss/policy"], -0.2 * A * math.log(2))
    close(metrics["clipped"], 3 / 4)
    close(gradient, [[0.2 * A, A / 4, 0.375 * A], [-0.375 * A, 0, 0]])


def test_by_default_only_large_weights_are_bounded() -> None:
    # No lower bound, at most 1 + 4.
    batch = table_groups([0, 1], [[1, 1], [1, 1]], logp_old=f64([[0, 0]] * 2))
    _, _, gradient = learn(CISPO(), batch, ln([[0.01, 10], [0.01, 4]]))
    close(gradient, [[0.01 * A / 4, 5 * A / 4], [-0.01 * A / 4, -A]])
