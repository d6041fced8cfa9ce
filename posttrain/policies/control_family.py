"""A family of policies in one, from which a balance chooses by the state   (Wang et al., 2310.17966)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posttrain.data.steps import Spaces
from posttrain.nets.mlp import MLP, Normalizer
from posttrain.nets.renorm import Renorm
from posttrain.nets.squashed import log_density
from posttrain.policies.acting import Sampled
from posttrain.policies.control import KINDS, BoundedGaussian

WAVES = 3  # d / 2 of the code of κ; the authors' code
REACH = 6.0  # κ = 1 is coded as this: the width of the authors' range for AntMaze


class Family(BoundedGaussian):
    """a ~ N(tanh μ(s, e(κ)), σ²) for every κ in [0, 1]; κ = (1 + tanh u) / 2, u ~ N(μ_b(s), σ_b²), is the balance's.

    Whoever does not say κ acts by the likeliest.
    """

    kind = "family"
    last_gain = 0.01

    def __init__(self, spaces: Spaces, width: int, layers: int, activation: str, normalizer: Normalizer | None,
                 generator: torch.Generator, *, remembered: int = 0, renorm: Renorm | None = None) -> None:
        super().__init__(spaces, width, layers, activation, normalizer, generator, remembered=remembered)
        hidden = [width] * layers
        self.body = MLP([spaces.obs + remembered + 2 * WAVES, *hidden, spaces.action], activation, generator,
                        self.last_gain)
        self.balance = MLP([spaces.obs + remembered, *hidden, 1], activation, generator, self.last_gain)
        self.balance_log_std = nn.Parameter(torch.zeros(1))

    def balanced(self, obs: Tensor, noise: Tensor) -> Sampled:
        """κ [B] from noise [B], and the log-density of 2 κ − 1, with gradient to the balance."""
        mean = self.balance(self._normalized(obs))  # [B, 1]
        z = noise[:, None]
        u = mean + self.balance_log_std.exp() * z
        return Sampled((1 + torch.tanh(u[:, 0])) / 2, lambda: log_density(u, z, self.balance_log_std))

    def mean(self, obs: Tensor, kappa: Tensor, fixed: bool = False) -> Tensor:
        """tanh μ(s, e(κ)), [B, A]; `fixed`: with gradient to κ alone."""
        x = torch.cat([self._normalized(obs), waves(kappa)], -1)
        return torch.tanh(self.body.fixed(x) if fixed else self.body(x))

    def climbing(self, obs: Tensor, kappa: Tensor, noise: Tensor) -> Tensor:
        """An action of the policy κ from noise [B, A], with gradient to κ alone."""
        return (self.mean(obs, kappa, fixed=True) + self._log_std.detach().exp() * noise).clamp(-1, 1)

    def fit(self, obs: Tensor, action: Tensor, kappa: Tensor) -> Tensor:
        """log π(a | s) of the policy κ, [B]."""
        return self._density((action - self.mean(obs, kappa)) * (-self._log_std).exp())

    def likeliest(self, obs: Tensor) -> Tensor:
        """κ [B] that the balance chooses."""
        return (1 + torch.tanh(self.balance(self._normalized(obs))[:, 0])) / 2

    def mode(self, obs: Tensor) -> Tensor:
        return self.mean(obs, self.likeliest(obs))


def waves(kappa: Tensor) -> Tensor:
    """e(κ): sin and cos of REACH κ / 10000^(i / WAVES), i = 0, 1, 2: [B] -> [B, 2 WAVES]."""
    angle = REACH * kappa[:, None] * 10000.0 ** (-torch.arange(WAVES, dtype=kappa.dtype) / WAVES)
    return torch.cat([angle.sin(), angle.cos()], 1)


KINDS[Family.kind] = Family
