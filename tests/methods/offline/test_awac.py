"""AWAC's two losses by hand, and behaviour cloning as its limit."""

from __future__ import annotations

import math

import pytest
import torch
from table_actions import Sum
from table_control import TableActor, table_transitions
from torch import Tensor

from posttrain.core import Models
from posttrain.methods.offline.awac import AWAC


class Actor(TableActor):
    """The action that it samples is 0.25 in every state."""

    def sample(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((len(obs), 1), 0.25, dtype=torch.float64), self.table[obs[:, 0].long()]


def losses(**options: float) -> dict[str, float]:
    models = Models(policy=Actor([-1.0, -2.0, 0, 0]), q=Sum([[2.0, 1.0, 0, 0], [4.0, 0.0, 0, 0]]),
                    q_target=Sum([[0, 0, 5.0, 9.0], [0, 0, 4.0, 8.0]]))
    batch = table_transitions([1.0, 2.0], [False, True])
    batch = batch.replace(action=torch.tensor([[0.75], [-0.25]], dtype=torch.float64))
    loss = AWAC(discount=0.5, **options).loss(models, batch.counted())
    return {name: float(term.value.detach()) for name, term in loss.terms.items()}


def test_losses_by_hand() -> None:
    # y_0 = 1 + 0.5 (4 + 0.25) = 3.125;  y_1 = 2, which terminated.  Q(s, a) = 2.75, 4.75 and 0.75, −0.25:
    # L_Q = ½ [ 0.375² + 1.625² + 1.25² + 2.25² ] = ½ [ 0.140625 + 2.640625 + 1.5625 + 5.0625 ] = 4.703125
    # Advantages: (2 + 0.75) − (2 + 0.25) = 0.5;  (0 − 0.25) − (0 + 0.25) = −0.5.
    # L_π = −½ [ e^{0.5 / 0.5} · (−1) + e^{−1} · (−2) ]
    found = losses(temperature=0.5)
    assert found["q"] == pytest.approx(4.703125, abs=1e-12)
    assert found["policy"] == pytest.approx((math.e + 2 * math.exp(-1)) / 2, abs=1e-12)


def test_weights_are_bounded() -> None:
    # e^{0.5 / 0.1} = 148 is cut to 3; e^{−5} stays.
    assert losses(temperature=0.1, max_weight=3.0)["policy"] == pytest.approx((3 + 2 * math.exp(-5)) / 2, abs=1e-12)


def test_a_high_temperature_clones() -> None:
    """The mean of −log π, 1.5."""
    assert losses(temperature=1e13)["policy"] == pytest.approx(1.5, abs=1e-12)
