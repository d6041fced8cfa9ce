"""Several Gaussian policies in one, of which one acts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from posttrain.core import Batch
from posttrain.data.steps import Spaces
from posttrain.nets.mlp import Ensemble, Normalizer
from posttrain.nets.renorm import Renorm
from posttrain.policies.acting import ControlPolicy, Sampled, over
from posttrain.policies.control import KINDS, _kl


class PolicyEnsemble(ControlPolicy):
    """a ~ N(μ_k(s), σ_k²) for each of K members, σ_k the same in every state; `chosen` is the one that acts."""

    kind = "ensemble"
    outputs = 1
    options = ("ensemble",)

    def __init__(self, spaces: Spaces, width: int, layers: int, activation: str, normalizer: Normalizer | None,
                 generator: torch.Generator, *, ensemble: int = 4, remembered: int = 0, renorm: Renorm | None = None
                 ) -> None:
        super().__init__(spaces, width, layers, activation, normalizer, generator, remembered=remembered)
        self.ensemble = ensemble
        self.members = Ensemble(ensemble, [spaces.obs + remembered, *[width] * layers, spaces.action], activation,
                                generator)
        del self.body
        self.log_std = nn.Parameter(torch.zeros(ensemble, 1, spaces.action))
        self.chosen: Tensor
        self.register_buffer("chosen", torch.zeros((), dtype=torch.long))

    # ------------------------------------------------------------------ what every member says

    def modes(self, seen: Tensor) -> Tensor:
        """μ, [K, B, A]; [K, B, obs] gives each member its own."""
        out: Tensor = self.members(self._normalized(seen))
        return out

    def draws(self, seen: Tensor, noise: Tensor) -> Tensor:
        """An action of each member, [K, B, A], from noise [B, A]."""
        return self.modes(seen) + self.log_std.exp() * noise

    def densities(self, seen: Tensor, action: Tensor) -> Tensor:
        """log π_k(a | s), [K, B], of actions [B, A], or [K, B, A] of each member's own."""
        z = (action - self.modes(seen)) * (-self.log_std).exp()
        return (-0.5 * z**2 - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    @torch.no_grad()
    def take(self, other: PolicyEnsemble, which: Tensor) -> None:
        """These members, [K] bool, become the other's."""
        for own, theirs in zip(self.parameters(), other.parameters(), strict=True):
            own[which] = theirs[which].to(own.dtype)

    # ------------------------------------------------------------------ what the one that acts says

    @property
    def _spread(self) -> Tensor:
        return self.log_std[self.chosen, 0]

    def sample(self, obs: Tensor, noise: Tensor) -> Sampled:
        action = self.mode(obs) + self._spread.exp() * noise
        return Sampled(action, self.log_density(obs, action))

    def mode(self, obs: Tensor) -> Tensor:
        return self.modes(obs)[self.chosen]

    def log_density(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.densities(obs, action)[self.chosen]

    def entropy(self, obs: Tensor) -> Tensor:
        return (self._spread + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(len(obs))

    def kl_from(self, batch: Batch, other: PolicyEnsemble) -> Tensor:
        """KL(other ‖ self) of each decision, [B, T]."""
        with torch.no_grad():
            mean = other.mode(other.seen(batch))
        return over(batch, _kl(mean, other._spread.detach(), self.mode(self.seen(batch)), self._spread))


KINDS[PolicyEnsemble.kind] = PolicyEnsemble
