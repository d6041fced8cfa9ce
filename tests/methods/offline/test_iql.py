"""IQL's three losses by hand, and its two limits."""

from __future__ import annotations

import math

import pytest
import torch
from table_control import Table, TableActor, table_transitions

from posttrain import ops
from posttrain.core import Models
from posttrain.methods.offline.iql import IQL


def models() -> Models:
    """Two transitions: states 0 and 1, next states 2 and 3."""
    return Models(policy=TableActor([-1.0, -2.0, 0, 0]), critic=Table([1.0, 2.0, 3.0, 9.0]),
                  q=Table([[2.0, 1.0, 0, 0], [4.0, 0.0, 0, 0]]), q_target=Table([[1.5, 1.0, 0, 0], [2.0, 3.0, 0, 0]]))


def losses(**options: float) -> dict[str, float]:
    loss = IQL(discount=0.5, **options).loss(models(), table_transitions([1.0, 2.0], [False, True]).counted())
    return {name: float(term.value.detach()) for name, term in loss.terms.items()}


def test_losses_by_hand() -> None:
    # u_0 = min(1.5, 2) − 1 = 0.5;  u_1 = min(1, 3) − 2 = −1.
    # L_V = ½ [ 0.8 · 0.25 + 0.2 · 1 ] = 0.2
    # y_0 = 1 + 0.5 · V(2) = 2.5;  y_1 = 2, which terminated.
    # L_Q = ½ [ (2 − 2.5)² + (4 − 2.5)² + (1 − 2)² + (0 − 2)² ] = ½ [ 0.25 + 2.25 + 1 + 4 ] = 3.75
    # L_π = −½ [ e^{2 · 0.5} · (−1) + e^{−2} · (−2) ]
    found = losses(expectile=0.8, inverse_temperature=2.0)
    assert found["value"] == pytest.approx(0.2, abs=1e-12)
    assert found["q"] == pytest.approx(3.75, abs=1e-12)
    assert found["policy"] == pytest.approx((math.e + 2 * math.exp(-2)) / 2, abs=1e-12)


def test_weights_are_bounded() -> None:
    # e^{10 · 0.5} = 148 is cut to 2; e^{−10} stays.
    found = losses(inverse_temperature=10.0, max_weight=2.0)
    assert found["policy"] == pytest.approx((2 + 2 * math.exp(-10)) / 2, abs=1e-12)


def test_without_advantages_it_clones() -> None:
    """β = 0: the mean of −log π, 1.5."""
    assert losses(inverse_temperature=0.0)["policy"] == pytest.approx(1.5, abs=1e-12)


@pytest.mark.parametrize(("tau", "expected"), [(0.5, 2.5), (0.9, 3.7), (0.99, 3.97)])
def test_the_value_is_an_expectile(tau: float, expected: float) -> None:
    """Of Q = 1 and 4 in one state: τ (4 − v) = (1 − τ) (v − 1), so v = 1 + 3 τ; τ → 1 is the maximum."""
    v = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    q = torch.tensor([1.0, 4.0], dtype=torch.float64)
    at = v.detach() + 3 * tau
    slope = torch.autograd.grad(ops.expectile(q - (v - v.detach() + at), tau).sum(), v)[0]
    assert float(at) == pytest.approx(expected)
    assert abs(float(slope)) < 1e-12
