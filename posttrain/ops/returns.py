"""Returns and advantages along a row, stepping over the decisions that are not the policy's."""

from __future__ import annotations

import torch
from torch import Tensor


def gae(reward: Tensor, value: Tensor, mask: Tensor, bootstrap: Tensor, discount: float, decay: float) -> Tensor:
    """Â_t = Σ_l (γ λ)^l δ_{t+l}, δ_t = r_t + γ V_{t+1} − V_t, over the masked decisions only, [B, T].

    reward, value [B, T]; mask [B, T] bool; bootstrap [B]: the value after the last decision, 0 where the row
    terminated.  Masked places are skipped, not treated as steps of value zero: V_{t+1} is the value of the row's next
    own decision.  0 where masked.  Schulman et al. 2015 (1506.02438), eq. 16.
    """
    assert reward.shape == value.shape == mask.shape and bootstrap.shape == mask.shape[:1]
    advantage = torch.zeros_like(value)
    ahead, after = torch.zeros_like(bootstrap), bootstrap
    for t in range(mask.shape[1] - 1, -1, -1):
        own = mask[:, t]
        delta = reward[:, t] + discount * after - value[:, t]
        ahead = torch.where(own, delta + discount * decay * ahead, ahead)
        after = torch.where(own, value[:, t], after)
        advantage[:, t] = torch.where(own, ahead, 0.0)
    return advantage


def to_go(reward: Tensor, mask: Tensor, discount: float = 1.0) -> Tensor:
    """Σ_{l ≥ 0} γ^l r_{t+l} over the masked decisions, [B, T]; 0 where masked."""
    zero = torch.zeros_like(reward)
    return gae(reward, zero, mask, torch.zeros_like(reward[:, 0]), discount, 1.0)
