"""BAPO's search for the clip bounds, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups, Method
from posttrain.methods.groups.bapo_adaptive_clip import BAPOAdaptiveClip

# Rewards 0 and 1: mean 1/2, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: Method[Any], batch: Groups, logp: Tensor) -> tuple[Learner, Tensor]:
    """The learner after one update, and the gradient with respect to log π, [B, T]."""
    learner = Learner(method, TablePolicy(logp))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


def test_stays_where_the_share_is_reached() -> None:
    # P = 1 + 1, N = 1: a share of ⅔.
    assert BAPOAdaptiveClip().bounds(f64([[1, 1, 1]]), f64([[1, 1, -1]])) == (0.6, 1.2)
    assert BAPOAdaptiveClip().bounds(f64([[1, 1]]), f64([[1, 1]])) == (0.6, 1.2)


def test_raises_the_lower_bound_first() -> None:
    # Good tokens at ρ = 1 and 1.98, the latter beyond c_high; bad ones at 0.72 and 1: P = 1, N = 1.72, share 0.37.
    # At c_low = 0.75 the first bad token is dropped: P = N = 1, enough.  Larger bounds would do as well.
    low, high = BAPOAdaptiveClip().bounds(f64([[1, 1.98, 0.72, 1]]), f64([[1, 1, -1, -1]]))
    assert (low, high) == pytest.approx((0.75, 1.2))


def test_then_the_upper_bound() -> None:
    # As above with the last advantage at −2: N = 2.72, and 2 at c_low = 0.9, its end.  P = 1 until c_high = 2 lets
    # 1.98 in: P = 2.98.
    low, high = BAPOAdaptiveClip().bounds(f64([[1, 1.98, 0.72, 1]]), f64([[1, 1, -1, -2]]))
    assert (low, high) == pytest.approx((0.9, 2.0))


def test_gives_up_at_the_ends() -> None:
    assert BAPOAdaptiveClip().bounds(f64([[1, 1]]), f64([[1, -2]])) == (0.9, 3.0)


def test_loss_uses_what_was_found() -> None:
    # The sampler had log μ = 0.  Â = −A at ρ = 0.72 and 1, +A at 1 and 1.98: the second case above in units of A.
    # Gains −0.75 A (clipped), −A, A, 1.2 A (clipped): L = −¼ · 0.45 A.
    logp = f64([[0.72, 1], [1, 1.98]]).log()
    learner, gradient = run(BAPOAdaptiveClip(), table_groups([0, 1], [[1, 1], [1, 1]]), logp)
    assert learner.models.state == pytest.approx({"clip_low": 0.75, "clip_high": 1.2})
    assert learner.metrics["loss/policy"] == pytest.approx(-0.45 * A / 4)
    assert_close(gradient, A / 4 * f64([[0, 1], [-1, 0]]))


def test_a_bad_token_beyond_the_bound_is_left_alone() -> None:
    # Â = −A at ρ = 5 > 3: it has no gradient, so it does not count in N either, and P / (P + N) = 1 moves nothing.
    logp = f64([[5], [1]]).log()
    learner, gradient = run(BAPOAdaptiveClip(), table_groups([0, 1], [[1], [1]]), logp)
    assert learner.models.state == {"clip_low": 0.6, "clip_high": 1.2}
    assert_close(gradient, A / 2 * f64([[0], [-1]]))
