"""A network that follows another."""

from __future__ import annotations

import torch
from torch import nn

from posttrain import ops


def net(*values: float, dtype: torch.dtype = torch.float32) -> nn.ParameterList:
    return nn.ParameterList([torch.full((2,), value, dtype=dtype) for value in values])


def test_moves_part_of_the_way() -> None:
    target, source = net(1.0, -2.0), net(5.0, 2.0)
    ops.follow_(target, source, 0.25)
    assert [p.tolist() for p in target] == [[2, 2], [-1, -1]]
    assert [p.tolist() for p in source] == [[5, 5], [2, 2]]


def test_a_rate_of_one_copies_exactly_and_keeps_the_precision() -> None:
    target, source = net(1e8), net(0.1, dtype=torch.bfloat16)
    ops.follow_(target, source, 1.0)
    assert target[0].dtype == torch.float32
    assert torch.equal(target[0], source[0].float())
    assert target[0].grad_fn is None
