"""Denoisers that are shown, and say, numbers of variance 1 at any noise level   (Karras et al. 2206.00364)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def denoised(net: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """D(x, σ) = σ_d² / (σ² + σ_d²) x + σ σ_d / √(σ² + σ_d²) F(x / √(σ² + σ_d²), ln(σ) / 4), [n, D]; table 1.

    net: F, of [n, D] and [n]; x: [n, D], noisy; sigma: [n], how noisy; sigma_data: σ_d, the data's own deviation.
    """
    assert x.dim() == 2 and sigma.shape == x.shape[:1], (x.shape, sigma.shape)
    total = (sigma**2 + sigma_data**2)[:, None]
    said = net(x / total.sqrt(), sigma.log() / 4)
    return sigma_data**2 / total * x + sigma[:, None] * sigma_data / total.sqrt() * said
