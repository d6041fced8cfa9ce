"""Two other ways for a policy to try what it has not tried: noise that follows the state, and nothing but extremes."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posttrain.data.steps import Spaces
from posttrain.policies.acting import ControlPolicy, Sampled

LEAST_VARIANCE = 1e-6  # so that a state without features has a density; Stable-Baselines3's


class StateDependent(ControlPolicy):
    """a = μ(s) + Θᵀ z(s), Θ_ij ~ N(0, σ_ij²), so a_j ~ N(μ_j(s), Σ_i σ_ij² z_i(s)²)   (Raffin et al., 2005.05719).

    z: the last hidden layer, through which the noise sends no gradient.  Θ is drawn for each environment and serves
    `hold` steps, over which the noise is a function of the state: like states are answered alike.
    """

    kind = "state-dependent"
    outputs = 1

    def __init__(self, spaces: Spaces, *arguments: Any, **options: Any) -> None:
        super().__init__(spaces, *arguments, **options)
        self.features = self.body.weights[-1].shape[0]
        self.log_std = nn.Parameter(torch.zeros(self.features, spaces.action))

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Θ / σ, [*shape, features, A]."""
        return torch.randn(*shape, self.features, self.spaces.action, generator=generator)

    def _moments(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """μ [B, A], z [B, features] and the variance [B, A]."""
        hidden = self.body.hidden(self._normalized(obs))
        z = hidden.detach()
        return self.body.last(hidden), z, z**2 @ (2 * self.log_std).exp() + LEAST_VARIANCE

    def sample(self, obs: Tensor, noise: Tensor) -> Sampled:
        mean, z, variance = self._moments(obs)
        action = mean + torch.einsum("bi,bij->bj", z, noise.to(z) * self.log_std.exp())
        return Sampled(action, lambda: _normal_density(action, mean, variance))

    def mode(self, obs: Tensor) -> Tensor:
        out: Tensor = self(obs)
        return out

    def log_density(self, obs: Tensor, action: Tensor) -> Tensor:
        mean, _, variance = self._moments(obs)
        return _normal_density(action, mean, variance)

    def entropy(self, obs: Tensor) -> Tensor:
        return 0.5 * (self._moments(obs)[2].log() + math.log(2 * math.pi * math.e)).sum(-1)


def _normal_density(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(x; mean, variance), [B, A] each, summed over A."""
    return -0.5 * ((x - mean) ** 2 / variance + variance.log() + math.log(2 * math.pi)).sum(-1)


class BangBang(ControlPolicy):
    """Each number of an action is one end of its range, 1 with probability sigmoid(l_j(s)), else −1.

    Seyde et al. 2021 (2111.02552).
    """

    kind = "bang-bang"
    outputs = 1

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """[*shape, A] uniform."""
        return torch.rand(*shape, self.spaces.action, generator=generator)

    def sample(self, obs: Tensor, noise: Tensor) -> Sampled:
        """Without gradient to the action, which jumps."""
        logits = self(obs)
        action = 2 * (noise < logits.detach().sigmoid()).to(logits) - 1
        return Sampled(action, lambda: F.logsigmoid(action * logits).sum(-1))

    def mode(self, obs: Tensor) -> Tensor:
        logits: Tensor = self(obs)
        return 2 * (logits > 0).to(obs) - 1

    def log_density(self, obs: Tensor, action: Tensor) -> Tensor:
        logits: Tensor = self(obs)
        return F.logsigmoid(action.sign() * logits).sum(-1)

    def entropy(self, obs: Tensor) -> Tensor:
        logits: Tensor = self(obs)
        return (F.softplus(logits) - logits * logits.sigmoid()).sum(-1)


ON_POLICY = (StateDependent.kind, BangBang.kind)  # kinds for methods that score what was done and climb no Q
