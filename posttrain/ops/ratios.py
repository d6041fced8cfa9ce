"""Importance ratios from log-ratios: log_ratio [B, T] is 0 where masked."""

from __future__ import annotations

import torch
from torch import Tensor


def sequence_log_ratio(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """1/|y| Σ_t log ρ_t, [B]: the log of the geometric mean of a row's token ratios; 0 for a row without decisions.

    GSPO: Zheng et al. 2025 (2507.18071), eq. 7.
    """
    assert log_ratio.shape == mask.shape, (log_ratio.shape, mask.shape)
    return torch.where(mask, log_ratio, 0.0).sum(1) / mask.sum(1).clamp(min=1)


def straight_through(value: Tensor, log_ratio: Tensor) -> Tensor:
    """`value` [B, 1] or [B, T] with the gradient of a token's own ratio: sg(value) · exp(log ρ − sg(log ρ)), [B, T]."""
    return value.detach() * (log_ratio - log_ratio.detach()).exp()


def truncated_weight(log_ratio: Tensor, limit: float) -> Tensor:
    """min(r, C) with r = exp(log_ratio) and C = limit ≥ 1, any shape.

    TIS: Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training".
    """
    assert limit >= 1, limit
    return log_ratio.exp().clamp(max=limit)


def masked_weight(log_ratio: Tensor, limit: float) -> Tensor:
    """r where 1/C ≤ r ≤ C, else 0, with r = exp(log_ratio) and C = limit ≥ 1, any shape.

    IcePop: Ling Team 2025 (2510.18855), with one bound for both sides.
    """
    assert limit >= 1, limit
    r = log_ratio.exp()
    return torch.where((r >= 1 / limit) & (r <= limit), r, 0.0)
