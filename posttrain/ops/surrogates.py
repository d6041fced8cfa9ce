"""What replaces the expected return inside an update."""

from __future__ import annotations

from torch import Tensor


def clipped_gain(ratio: Tensor, advantage: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """min( r Â, clip(r, 1 − low, 1 + high) Â ), and where the clipped side was the smaller (1.0 or 0.0).

    ratio, advantage: one shape, any.  Schulman et al. 2017 (1707.06347), eq. 7, with two ranges.
    """
    assert ratio.shape == advantage.shape, (ratio.shape, advantage.shape)
    plain, clipped = ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage
    return plain.minimum(clipped), (clipped < plain).to(ratio.dtype)
