"""Which entries to take when some must be left out, free of the order in which they stand."""

from __future__ import annotations

import torch
from torch import Tensor


def lowest(x: Tensor, k: int) -> Tensor:
    """Weight of each entry among the k lowest: x [n] -> [n] in [0, 1], with sum k.

    Entries equal to the k-th share the places that are left for them, which is the mean over random choices.
    """
    assert x.dim() == 1 and 0 <= k <= len(x), (x.shape, k)
    if k == 0:
        return torch.zeros_like(x)
    edge = x.sort().values[k - 1]
    below, at = x < edge, x == edge
    return below + at * ((k - below.sum()) / at.sum()).to(x.dtype)


def pass_share(when: Tensor, mask: Tensor) -> Tensor:
    """1 / (S |U_s|) for each decision of pass s, where a row has S passes and U_s are its decisions in that pass.

    when [B, T] long, mask [B, T] bool -> [B, T] float64; 0 where masked; a row with decisions sums to 1.
    """
    assert when.shape == mask.shape, (when.shape, mask.shape)
    together = (when[:, :, None] == when[:, None, :]) & mask[:, None, :]  # [B, T, T]
    size = together.sum(2).clamp(min=1)
    share = torch.where(mask, 1 / size.double(), 0.0)  # sums to S over a row
    return share / share.sum(1, keepdim=True).round().clamp(min=1)
