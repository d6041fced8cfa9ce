"""What a preference says about a margin.  Margins are [U]: one number a pair."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def logistic(margin: Tensor, smoothing: float = 0.0) -> Tensor:
    """−(1 − ε) log σ(m) − ε log σ(−m): Bradley–Terry, with a share ε of labels taken to be flipped (cDPO)."""
    return -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)


def squared(margin: Tensor, target: float) -> Tensor:
    """(m − target)²: IPO (Azar et al. 2023, 2310.12036, eq. 17), which stops at a margin instead of running to ∞."""
    return (margin - target) ** 2
