"""Which rows of a group are held against each other, whatever they are worth."""

from __future__ import annotations

import torch
from torch import Tensor

from posttrain.ops.preferences import Pairs


def every_two(group: Tensor, dtype: torch.dtype) -> Pairs:
    """Every two rows of one group, once, as (earlier, later): group [B].  For what is symmetric in the two."""
    assert group.dim() == 1, group.shape
    earlier, later = (group[:, None] == group).triu(1).nonzero(as_tuple=True)
    return Pairs(earlier, later, torch.ones(len(earlier), dtype=dtype))
