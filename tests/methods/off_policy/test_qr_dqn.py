"""QR-DQN's target and loss by hand."""

from __future__ import annotations

import pytest
import torch
from table_actions import Numbered
from table_control import table_transitions

from posttrain.core import Models
from posttrain.methods.off_policy.dqn import DQN
from posttrain.methods.off_policy.qr_dqn import QRDQN


def test_loss_by_hand() -> None:
    # Next state 2: the second action's mean 4 is above the first's 3: y = 1 + 0.5 · (2, 6) = (2, 4).
    # Row 1 ended: (1, 1).
    # Row 0, θ = (1, 3): u_1j = 1, 3: ¼ · (0.5 + 2.5) / 2 = 0.375;  u_2j = −1, 1: (¼ · 0.5 + ¾ · 0.5) / 2 = 0.25.
    # Row 1, θ = (1, 1): 0.  L = ½ · 0.625.
    models = Models({"updates": 0.0}, policy=None,
                    q=Numbered([[[[1.0, 3.0], [0, 0]], [[0, 0], [1.0, 1.0]], [[0, 0]] * 2, [[0, 0]] * 2]]),
                    q_target=Numbered([[[[0, 0.0]] * 2, [[0, 0]] * 2, [[3.0, 3.0], [2.0, 6.0]], [[9.0, 9.0]] * 2]]))
    batch = table_transitions([1.0, 1.0], [False, True], noises=0).replace(action=torch.tensor([0, 1]))
    method = QRDQN(atoms=2, discount=0.5)
    assert method.target(models, batch).tolist() == [[2.0, 4.0], [1.0, 1.0]]
    assert float(method.loss(models, batch.counted()).value.detach()) == pytest.approx(0.3125, abs=1e-12)


def test_one_quantile_has_half_the_loss_of_dqn() -> None:
    # τ = ½ weighs errors of either sign by ½.
    q, kept = (torch.randn(1, 4, 3, dtype=torch.float64) for _ in range(2))
    batch = table_transitions([1.0, 2.0], [False, False], noises=0).replace(action=torch.tensor([0, 1])).counted()
    plain = Models({"updates": 0.0}, policy=None, q=Numbered(q), q_target=Numbered(kept))
    atoms = Models({"updates": 0.0}, policy=None, q=Numbered(q[..., None]), q_target=Numbered(kept[..., None]))
    one, other = DQN().loss(plain, batch).value, QRDQN(atoms=1).loss(atoms, batch).value
    assert float(other.detach()) == pytest.approx(float(one.detach()) / 2, abs=1e-12)
