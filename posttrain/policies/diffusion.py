"""Diffusion: the net says what noise a picture holds; sampled by DDPM, or without noise by DDIM.

    x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε,  ᾱ_t = cos²(c t π/2)                     what the net learns is ε
    x̂_0 = (x_t − √(1 − ᾱ_t) ε̂) / √ᾱ_t
    σ   = η √((1 − ᾱ_s) / (1 − ᾱ_t)) √(1 − ᾱ_t / ᾱ_s)
    x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s − σ²) ε̂ + σ ε'                              from t to s < t

η = 1 is DDPM's ancestral step and η = 0 DDIM (Song et al. 2010.02502, eq. 12 and 16).  ᾱ is Nichol and Dhariwal's
cosine, stopped short at ᾱ_1 = 1e-3.  The last step has ᾱ_s = 1 and so σ = 0: it decides nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posttrain.policies.denoising import DenoisingPolicy, Step

LEAST = 1e-3  # ᾱ_1
REACH = math.acos(LEAST**0.5)  # c π/2


def kept(t: Tensor) -> Tensor:
    """ᾱ at times t, of the picture's own variance."""
    return (REACH * t).cos() ** 2


class DiffusionPolicy(DenoisingPolicy):
    """`spread` is η, in [0, 1]; S steps of 1 / S."""

    kind = "diffusion"

    def transition(self, x: Tensor, step: Tensor, label: Tensor, drawn: Tensor) -> Step:
        t = 1 - step.to(x.dtype) / self.steps
        noise = self.net(x, t, label)
        here, there = self._kept(step, x.dtype)
        std = torch.where(drawn, self._sigma(here, there), 0.0)[:, None]
        here, there = here[:, None], there[:, None]
        picture = (x - (1 - here).sqrt() * noise) / here.sqrt()
        rest = (1 - there - std**2).clamp(min=0).sqrt()
        return Step(there.sqrt() * picture + rest * noise, std[:, 0])

    def deviation(self, step: Tensor, dtype: torch.dtype) -> Tensor:
        return self._sigma(*self._kept(step, dtype))

    def _kept(self, step: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """ᾱ before and after each step."""
        t = 1 - step.to(dtype) / self.steps
        after = torch.where(step == self.steps - 1, 0.0, t - 1 / self.steps)
        return kept(t), kept(after)

    def _sigma(self, here: Tensor, there: Tensor) -> Tensor:
        return self.spread * ((1 - there) / (1 - here)).sqrt() * (1 - here / there).sqrt()

    def noised(self, picture: Tensor, time: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        share = kept(time)[:, None]
        return share.sqrt() * picture + (1 - share).sqrt() * noise, noise
