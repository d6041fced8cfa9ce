"""C51's target and loss, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from table_actions import Numbered
from table_control import table_transitions

from posttrain.core import Models, Transitions
from posttrain.core.errors import UserError
from posttrain.methods.off_policy.c51 import C51

METHOD = C51(atoms=3, low=0.0, high=2.0, discount=0.5)


def logits(*p: float) -> list[float]:
    return [math.log(x) for x in p]


def models(members: int = 1) -> Models:
    """Two transitions: states 0 and 1, next states 2 and 3; two actions.

    In state 2 the copy's second action is worth 0.25 + 2 · 0.5 = 1.25, its first 1; Q itself is even over the atoms.
    """
    even, uneven = logits(1 / 3, 1 / 3, 1 / 3), logits(0.25, 0.25, 0.5)
    after = [[even, even], [even, even], [even, uneven], [even, uneven]]
    support = METHOD.support.double()
    return Models({"updates": 0.0}, policy=None, q=Numbered([[[even, even]] * 4] * members, support),
                  q_target=Numbered([after] * members, support))


def batch() -> Transitions:
    return table_transitions([0.5, 0.25], [False, True], noises=0).replace(action=torch.tensor([0, 1]))


def test_target_by_hand() -> None:
    # Row 0: atoms 0, 1, 2 move to 0.5, 1, 1.5 with 0.25, 0.25, 0.5: halves of 0.25 to 0 and 1, all of 0.25 to 1, halves
    # of 0.5 to 1 and 2: (0.125, 0.625, 0.25).  Row 1 ended: all at 0.25, ¾ to 0 and ¼ to 1.
    found = METHOD.target(models(), batch())
    assert found[0].tolist() == pytest.approx([0.125, 0.625, 0.25], abs=1e-12)
    assert found[1].tolist() == pytest.approx([0.75, 0.25, 0], abs=1e-12)


def test_loss_by_hand() -> None:
    # Q is even, so the loss is log 3 in each row; its slope in a logit is ½ (⅓ − m_i).
    networks = models()
    loss = METHOD.loss(networks, batch().counted()).value
    assert float(loss.detach()) == pytest.approx(math.log(3), abs=1e-12)
    loss.backward()
    assert networks.q.values_.grad[0, 0, 0].tolist() == pytest.approx([(1 / 3 - m) / 2 for m in (0.125, 0.625, 0.25)])
    assert networks.q.values_.grad[0, 0, 1].tolist() == [0, 0, 0]


def test_a_support_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="high = 1: must be above low = 1"):
        C51(low=1.0, high=1.0)
    with pytest.raises(UserError, match="atoms = 1: must be ≥ 2"):
        C51(atoms=1)
