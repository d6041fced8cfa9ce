"""Estimates of a divergence between two policies from the decisions that one of them made."""

from __future__ import annotations

from torch import Tensor


def k3(log_ratio: Tensor) -> Tensor:
    """exp(−x) − 1 + x with x = log π − log π_ref: never negative, unbiased for KL(π ‖ π_ref) under samples of π.

    log_ratio: any shape.  The gradient is that of the estimate, as in GRPO, not that of the divergence.
    Schulman 2020, "Approximating KL divergence"; GRPO's eq. 4.
    """
    return (-log_ratio).expm1() + log_ratio


def k1(log_ratio: Tensor) -> Tensor:
    """x = log π − log π_ref: unbiased for KL(π ‖ π_ref) under samples of π; in a loss its mean gradient is zero."""
    return log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """x² / 2: biased in value, but its gradient under samples of π is that of KL(π ‖ π_ref)."""
    return log_ratio**2 / 2
