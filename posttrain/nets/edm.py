"""Denoisers that are shown, and say, numbers of variance 1 at any noise level   (Karras et al. 2206.00364)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def denoised(net: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor, sigma_data: float,
             least: float = 0.0) -> Tensor:
    """D(x, σ) = σ_d² / (δ² + σ_d²) x + δ σ_d / √(σ² + σ_d²) F(x / √(σ² + σ_d²), ln(σ) / 4), δ = σ − σ_0, [n, D].

    net: F, of [n, D] and [n]; x: [n, D], noisy; sigma: [n], how noisy; sigma_data: σ_d, the data's own deviation.
    least: σ_0, at which D is x itself: 0 for a denoiser (table 1), above for a consistency model (2303.01469, app. C).
    """
    assert x.dim() == 2 and sigma.shape == x.shape[:1], (x.shape, sigma.shape)
    total = (sigma**2 + sigma_data**2)[:, None]
    said = net(x / total.sqrt(), sigma.log() / 4)
    apart = (sigma - least)[:, None]
    return sigma_data**2 / (apart**2 + sigma_data**2) * x + apart * sigma_data / total.sqrt() * said
