"""Selections that ties cannot disturb."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from posttrain.ops import lowest


def test_lowest() -> None:
    # Below 2 there is one; the two that are 2 share the second of two places, both have it when there are three.
    x = torch.tensor([2.0, 5.0, 1.0, 2.0])
    assert_close(lowest(x, 2), torch.tensor([0.5, 0, 1, 0.5]))
    assert_close(lowest(x, 3), torch.tensor([1.0, 0, 1, 1]))
    assert_close(lowest(x, 0), torch.zeros(4))
    assert_close(lowest(x, 4), torch.ones(4))
    assert_close(lowest(-x, 1), torch.tensor([0.0, 1, 0, 0]))
