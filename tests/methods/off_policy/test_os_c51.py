"""OS-C51's target by hand, and where it is C51's."""

from __future__ import annotations

import pytest
import torch
from table_actions import Numbered
from table_control import table_transitions

from posttrain.core import Models
from posttrain.methods.off_policy.c51 import C51
from posttrain.methods.off_policy.os_c51 import OSC51

GIVEN = {"atoms": 3, "low": 0.0, "high": 2.0, "discount": 0.5}


def models(p: list[float]) -> Models:
    """In every state the second action has these probabilities, and the first is worth 0."""
    law = torch.tensor([[1.0, 0, 0], p], dtype=torch.float64).log().clamp(min=-1e3).expand(1, 4, 2, 3)
    q = Numbered(law, OSC51(**GIVEN).support.double())
    return Models({"updates": 0.0}, policy=None, q=q, q_target=q)


def test_target_by_hand() -> None:
    # The next state is worth 0.25 + 2 · 0.5 = 1.25: y = 0.5 + 0.5 · 1.25 = 1.125, ⅞ to 1 and ⅛ to 2.
    # Row 1 ended: 0.25.
    batch = table_transitions([0.5, 0.25], [False, True], noises=0).replace(action=torch.tensor([0, 1]))
    found = OSC51(**GIVEN).target(models([0.25, 0.25, 0.5]), batch)
    assert found[0].tolist() == pytest.approx([0, 0.875, 0.125], abs=1e-12)
    assert found[1].tolist() == pytest.approx([0.75, 0.25, 0], abs=1e-12)


def test_is_c51_where_the_next_law_is_certain() -> None:
    batch = table_transitions([0.5, 0.25], [False, False], noises=0).replace(action=torch.tensor([0, 1]))
    networks = models([0.0, 0.0, 1.0])
    assert torch.allclose(OSC51(**GIVEN).target(networks, batch), C51(**GIVEN).target(networks, batch), atol=1e-12)
