"""DQNReg's loss and slope by hand."""

from __future__ import annotations

import pytest
import torch
from table_actions import Numbered
from table_control import table_transitions

from posttrain.core import Models
from posttrain.methods.off_policy.dqn import DQN
from posttrain.methods.off_policy.evolved_dqnreg import EvolvedDQNReg


def models() -> Models:
    """Two transitions: states 0 and 1, next states 2 and 3; two actions."""
    return Models({"updates": 0.0}, policy=None, q=Numbered([[[1.0, 7.0], [2.0, 1.5], [0, 0], [0, 0]]]),
                  q_target=Numbered([[[0, 0], [0, 0], [5.0, 6.0], [9.0, 8.0]]]))


BATCH = table_transitions([1.0, 2.0], [False, True], noises=0).replace(action=torch.tensor([0, 1])).counted()


def test_loss_by_hand() -> None:
    # y_0 = 1 + 0.5 · 6 = 4;  y_1 = 2.  L = ½ [ (1 − 4)² + 0.1 · 1 + (1.5 − 2)² + 0.1 · 1.5 ] = ½ · 9.5 = 4.75
    # Slopes: ½ (2 · (−3) + 0.1) = −2.95;  ½ (2 · (−0.5) + 0.1) = −0.45.
    networks = models()
    loss = EvolvedDQNReg(discount=0.5).loss(networks, BATCH).value
    assert float(loss.detach()) == pytest.approx(4.75, abs=1e-12)
    loss.backward()
    assert networks.q.values_.grad[0, :2].flatten().tolist() == pytest.approx([-2.95, 0, 0, -0.45], abs=1e-12)


def test_without_a_price_it_is_twice_dqn_with_no_limit_to_errors() -> None:
    one, other = EvolvedDQNReg(price=0.0).loss(models(), BATCH).value, DQN(error_limit=1e6).loss(models(), BATCH).value
    assert float(one.detach()) == pytest.approx(2 * float(other.detach()), abs=1e-12)


def test_a_price_alone_is_no_surprise() -> None:
    # |δ| = 3 and 0.5, whatever the values are.
    given = BATCH.with_extra(importance=torch.ones(2, dtype=torch.float64))
    with torch.no_grad():
        assert EvolvedDQNReg(discount=0.5).prepare(models(), given).extra["surprise"].tolist() == [3.0, 0.5]
