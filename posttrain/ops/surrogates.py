"""What replaces the expected return inside an update."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_gain(ratio: Tensor, advantage: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """min( r Â, clip(r, 1 − low, 1 + high) Â ), and where the clipped side was the smaller (1.0 or 0.0).

    ratio, advantage: one shape, any.  Schulman et al. 2017 (1707.06347), eq. 7, with two ranges.
    """
    assert ratio.shape == advantage.shape, (ratio.shape, advantage.shape)
    plain, clipped = ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage
    return plain.minimum(clipped), (clipped < plain).to(ratio.dtype)


def dual_clipped_gain(ratio: Tensor, advantage: Tensor, low: float, high: float, bound: float) -> Tensor:
    """`clipped_gain`, and never below bound · Â where Â < 0: a huge ratio cannot push without limit.

    bound > 1.  Ye et al. 2020 (1912.09729), eq. 5.
    """
    gain, _ = clipped_gain(ratio, advantage, low, high)
    return torch.where(advantage < 0, gain.maximum(bound * advantage), gain)


def weighted_log_prob(weight: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
    """sg(w) Â log π: REINFORCE with a fixed weight; its gradient never vanishes by clipping.  One shape, any."""
    assert weight.shape == advantage.shape == logp.shape, (weight.shape, advantage.shape, logp.shape)
    return weight.detach() * advantage * logp
