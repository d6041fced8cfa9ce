"""DQN's target, loss and copies, by hand."""

from __future__ import annotations

import pytest
import torch
from table_actions import Numbered
from table_control import table_transitions

from posttrain.core import Models, Transitions
from posttrain.methods.off_policy.dqn import DQN


def models() -> Models:
    """Two transitions: states 0 and 1, next states 2 and 3; two actions."""
    return Models({"updates": 0.0}, policy=None,
                  q=Numbered([[[1.0, 7.0], [2.0, 1.5], [4.0, 3.0], [0.0, 1.0]]]),
                  q_target=Numbered([[[0, 0], [0, 0], [5.0, 6.0], [9.0, 8.0]]]))


def batch(**changes: object) -> Transitions:
    """Action 0 in state 0 and action 1 in state 1."""
    made = table_transitions([1.0, 2.0], [False, True], noises=0)
    return made.replace(action=torch.tensor([0, 1]), **changes)


METHOD = DQN(discount=0.5, copy_every=2)


def test_loss_by_hand() -> None:
    # y_0 = 1 + 0.5 max(5, 6) = 4;  y_1 = 2, which terminated.  Errors 1 − 4 = −3 and 1.5 − 2 = −0.5.
    # h: 1 · (3 − ½) = 2.5 and 0.125;  L = 1.3125.  Slopes: −1 and −0.5, halved.
    networks = models()
    assert METHOD.target(networks, batch()).tolist() == [4.0, 2.0]
    loss = METHOD.loss(networks, batch().counted()).value
    assert float(loss.detach()) == pytest.approx(1.3125, abs=1e-12)
    loss.backward()
    assert networks.q.values_.grad[0].tolist() == [[-0.5, 0], [0, -0.25], [0, 0], [0, 0]]
    assert networks.q_target.values_.grad is None


def test_a_span_discounts_what_follows_it() -> None:
    # Three actions: y_0 = 1 + 0.5³ · 6 = 1.75.
    assert METHOD.target(models(), batch(span=torch.tensor([3, 1]))).tolist() == [1.75, 2.0]


def test_priorities_weigh_the_loss_and_are_given_back() -> None:
    # Weights 0.5 and 1: L = ½ [ 0.5 · 2.5 + 0.125 ] = 0.6875;  |δ| = 3 and 0.5.
    given = batch(extra={"importance": torch.tensor([0.5, 1.0], dtype=torch.float64)})
    with torch.no_grad():
        prepared = METHOD.prepare(models(), given).counted()
    assert prepared.extra["surprise"].tolist() == [3.0, 0.5]
    assert float(METHOD.loss(models(), prepared).value.detach()) == pytest.approx(0.6875, abs=1e-12)


def test_the_copy_is_taken_in_every_second_update() -> None:
    networks = models()
    METHOD.after_step(networks, {})
    assert networks.q_target.values_[0, 2].tolist() == [5.0, 6.0]
    METHOD.after_step(networks, {})
    assert torch.equal(networks.q_target.values_, networks.q.values_)
