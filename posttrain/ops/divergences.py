"""Estimates of a divergence between two policies from the decisions that one of them made."""

from __future__ import annotations

from torch import Tensor


def k3(logp: Tensor, logp_ref: Tensor) -> Tensor:
    """exp(d) − 1 − d with d = log π_ref − log π: never negative, unbiased for KL(π ‖ π_ref) under samples of π.

    Shapes equal, any.  Its gradient is that of the estimate, as in GRPO, not of the divergence.
    Schulman 2020, "Approximating KL divergence"; GRPO's eq. 4.
    """
    assert logp.shape == logp_ref.shape, (logp.shape, logp_ref.shape)
    d = logp_ref - logp
    return d.expm1() - d
