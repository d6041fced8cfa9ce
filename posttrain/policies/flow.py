"""Rectified flow: the net says which way noise flows into a picture; sampled as an ODE, or as the SDE of Flow-GRPO.

    x_t = (1 − t) x_0 + t ε,  v = ε − x_0                                    what the net learns
    ODE: x ← x − v Δ                                                       from t to t − Δ
    SDE: x ← x − [ v + σ²/(2t) (x + (1 − t) v) ] Δ + σ √Δ ε',  σ = a √(t / (1 − t))

Both have the same distribution at every t (Liu et al. 2505.05470, eq. 9), and the SDE's steps are Gaussian.  At the
first step, where t = 1 would make σ infinite, 1 − t is taken at the second step's t, as the authors do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posttrain.policies.denoising import DenoisingPolicy, Step


class FlowPolicy(DenoisingPolicy):
    """`spread` is a; S steps of Δ = 1 / S."""

    kind = "flow"

    def transition(self, x: Tensor, step: Tensor, label: Tensor, drawn: Tensor) -> Step:
        t = 1 - step.to(x.dtype) / self.steps
        velocity = self.net(x, t, label)
        std = torch.where(drawn, self._sigma(step, x.dtype), 0.0)[:, None]
        t, width = t[:, None], 1 / self.steps
        drift = velocity + std**2 / (2 * t) * (x + (1 - t) * velocity)
        return Step(x - drift * width, std[:, 0] * width**0.5)

    def deviation(self, step: Tensor, dtype: torch.dtype) -> Tensor:
        return self._sigma(step, dtype) / math.sqrt(self.steps)

    def _sigma(self, step: Tensor, dtype: torch.dtype) -> Tensor:
        """σ of each step [n]."""
        t = 1 - step.to(dtype) / self.steps
        rest = torch.where(step == 0, 1 / self.steps, 1 - t)
        sigma: Tensor = self.spread * (t / rest).sqrt()
        return sigma

    def noised(self, picture: Tensor, time: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        t = time[:, None]
        return (1 - t) * picture + t * noise, noise - picture
