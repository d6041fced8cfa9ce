"""A network that follows another."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow_(target: nn.Module, source: nn.Module, rate: float) -> None:
    """θ̄ ← θ̄ + rate (θ − θ̄) for every weight, in the target's own precision; rate = 1 copies."""
    for kept, now in zip(target.parameters(), source.parameters(), strict=True):
        kept.lerp_(now.to(kept.dtype), rate)
