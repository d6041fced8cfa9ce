"""Double DQN's target by hand."""

from __future__ import annotations

import torch
from table_actions import Numbered
from table_control import table_transitions

from posttrain.core import Models
from posttrain.methods.off_policy.double_dqn import DoubleDQN
from posttrain.methods.off_policy.dqn import DQN


def test_target_by_hand() -> None:
    # Next states 2 and 3: Q names action 0 (4 > 3) and 1 (1 > 0); their worth by the copy is 5 and 8, where DQN would
    # take 6 and 9.  y = 1 + 0.5 · 5 = 3.5 and 2 + 0.5 · 8 = 6; DQN's 4 and 6.5.
    models = Models({"updates": 0.0}, policy=None,
                    q=Numbered([[[1.0, 7.0], [2.0, 1.5], [4.0, 3.0], [0.0, 1.0]]]),
                    q_target=Numbered([[[0, 0], [0, 0], [5.0, 6.0], [9.0, 8.0]]]))
    batch = table_transitions([1.0, 2.0], [False, False], noises=0).replace(action=torch.tensor([0, 1]))
    assert DoubleDQN(discount=0.5).target(models, batch).tolist() == [3.5, 6.0]
    assert DQN(discount=0.5).target(models, batch).tolist() == [4.0, 6.5]


def test_is_dqn_where_both_networks_are_one() -> None:
    q = Numbered(torch.randn(1, 4, 3, dtype=torch.float64))
    models = Models({"updates": 0.0}, policy=None, q=q, q_target=q)
    batch = table_transitions([1.0, 2.0], [False, False], noises=0).replace(action=torch.tensor([0, 1]))
    assert torch.equal(DoubleDQN().target(models, batch), DQN().target(models, batch))
