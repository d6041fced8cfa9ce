"""Where along a row its reward is paid."""

from __future__ import annotations

import torch
from torch import Tensor


def last_decision(mask: Tensor) -> Tensor:
    """[B, T] bool: the last decision of each row that is the policy's own; none in a row without any."""
    return mask & (mask.long().flip(1).cumsum(1).flip(1) == 1)


def at_the_end(reward: Tensor, mask: Tensor) -> Tensor:
    """The reward of each row on its last own decision and 0 before: reward [B], mask [B, T] -> [B, T]."""
    assert reward.shape == mask.shape[:1], (reward.shape, mask.shape)
    return torch.where(last_decision(mask), reward[:, None], 0.0)
