from __future__ import annotations

import torch

from posttrain import ops


def test_passes_share_a_row_and_decisions_a_pass() -> None:
    # Row 0: passes {0: two tokens, 1: one} -> ¼, ½, ¼.  Row 1: the masked token's pass does not count.  Row 2: nothing.
    when = torch.tensor([[0, 1, 0], [2, 2, 5], [0, 0, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 0]], dtype=torch.bool)
    assert ops.pass_share(when, mask).tolist() == [[0.25, 0.5, 0.25], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
