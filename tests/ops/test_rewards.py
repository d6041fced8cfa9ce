"""Where a reward is paid."""

import torch

from posttrain import ops


def test_at_the_last_own_decision() -> None:
    # Around a tool's answer, before padding, after a tool's answer at the end, alone, and nowhere.
    mask = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    paid = ops.at_the_end(torch.tensor([1.0, 2, 3, 4, 5]), mask)
    assert paid.tolist() == [[0, 0, 1, 0], [0, 2, 0, 0], [0, 0, 0, 3], [0, 0, 4, 0], [0, 0, 0, 0]]
    assert torch.equal(ops.last_decision(mask), paid > 0)


def test_two_tools_and_no_row_at_all() -> None:
    assert ops.last_decision(torch.tensor([[True, False, True, False, False]])).tolist() == [[0, 0, 1, 0, 0]]
    assert ops.at_the_end(torch.zeros(0), torch.zeros(0, 3, dtype=torch.bool)).shape == (0, 3)
