"""Acting by what an encoder makes of a state: the encoder, the policy and the action values that take its vectors.

All are perceptrons with layer normalisation before each hidden activation; the encoder's own vector of a state is
normalised and activated too (Fujimoto et al. 2025, 2501.16142, app. B.2).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posttrain.data.steps import Spaces
from posttrain.nets.mlp import Ensemble
from posttrain.nets.perceptron import ACTIVATIONS
from posttrain.policies.acting import ControlPolicy
from posttrain.policies.control import KINDS, Deterministic


def perceptron(sizes: list[int], activation: str, generator: torch.Generator, members: int = 1) -> Ensemble:
    """Layer-normalised; weights even in ± √2 √(6 / (inputs + outputs)), biases 0 (Glorot & Bengio 2010)."""
    made = Ensemble(members, sizes, activation, generator, layer_norm=True)
    for weight, bias in zip(made.weights, made.biases, strict=True):
        bound = math.sqrt(12 / (weight.shape[1] + weight.shape[2]))
        weight.data.uniform_(-bound, bound, generator=generator)
        bias.data.zero_()
    return made


class Foreseen(NamedTuple):
    """What an action in a state is thought to lead to."""

    ended: Tensor  # [B]: 1 where the episode ends there, 0 where it goes on
    state: Tensor  # [B, width]: the vector of the next state
    reward: Tensor  # [B, N]: logits of the reward over N atoms


class Encoder(nn.Module):
    """Vectors of `width` numbers for states, and for actions in them; a linear model of what follows."""

    def __init__(self, spaces: Spaces, width: int, layers: int, activation: str, generator: torch.Generator,
                 atoms: int) -> None:
        """atoms: N."""
        super().__init__()
        self.spaces, self.width, self.layers, self.activation, self.atoms = spaces, width, layers, activation, atoms
        hidden, half = [width] * layers, max(width // 2, 1)
        self.states = perceptron([spaces.obs, *hidden, width], activation, generator)
        self.actions = perceptron([spaces.action, half], activation, generator)
        self.pairs = perceptron([width + half, *hidden, width], activation, generator)
        self.model = perceptron([width, 1 + width + atoms], activation, generator)

    @property
    def module(self) -> nn.Module:
        return self

    def state(self, obs: Tensor) -> Tensor:
        """[B, obs] -> [B, width]."""
        z = self.states(obs)[0]
        return ACTIVATIONS[self.activation](F.layer_norm(z, z.shape[-1:]))

    def pair(self, state: Tensor, action: Tensor, fixed: bool = False) -> Tensor:
        """[B, width], [B, A] -> [B, width]; fixed: with gradient to these alone."""
        actions, pairs = (self.actions.fixed, self.pairs.fixed) if fixed else (self.actions, self.pairs)
        out: Tensor = pairs(torch.cat([state, ACTIVATIONS[self.activation](actions(action)[0])], -1))[0]
        return out

    def foresee(self, pair: Tensor) -> Foreseen:
        ended, state, reward = self.model(pair)[0].split([1, self.width, self.atoms], -1)
        return Foreseen(ended[:, 0], state, reward)


class LatentValue(nn.Module):
    """Q of an encoder's vector of an action in a state, by an ensemble of K."""

    def __init__(self, members: int, width: int, layers: int, activation: str, generator: torch.Generator) -> None:
        super().__init__()
        self.body = perceptron([width, *[width] * (layers + 1), 1], activation, generator, members)

    @property
    def module(self) -> nn.Module:
        return self

    def forward(self, pair: Tensor) -> Tensor:
        """[B, width] -> [K, B]."""
        out: Tensor = self.body(pair)[:, :, 0]
        return out

    def fixed(self, pair: Tensor) -> Tensor:
        """The same with gradient to `pair` alone."""
        return self.body.fixed(pair)[:, :, 0]


class Latent(Deterministic):
    """a = tanh μ(z(s)): deterministic, by an encoder that is trained apart from it and saved with it."""

    kind = "latent"

    def __init__(self, encoder: Encoder, generator: torch.Generator) -> None:
        nn.Module.__init__(self)
        self.spaces, self.encoder, self.normalizer, self.memory = encoder.spaces, encoder, None, None
        sizes = [encoder.width, *[encoder.width] * encoder.layers, encoder.spaces.action]
        self.body = perceptron(sizes, encoder.activation, generator)  # type: ignore[assignment]

    @property
    def module(self) -> nn.Module:
        """All but the encoder."""
        return self.body

    def before(self, state: Tensor) -> Tensor:
        """μ of an encoder's vector of a state, [B, A], whose tanh is the action."""
        out: Tensor = self.body(state)[0]
        return out

    def forward(self, obs: Tensor) -> Tensor:
        return self.before(self.encoder.state(obs))

    @property
    def shape(self) -> dict[str, Any]:
        encoder = self.encoder
        return {"width": encoder.width, "layers": encoder.layers, "activation": encoder.activation,
                "atoms": encoder.atoms}

    @classmethod
    def of(cls, spaces: Spaces, **shape: Any) -> ControlPolicy:
        return cls(Encoder(spaces, generator=torch.Generator(), **shape), torch.Generator())


KINDS[Latent.kind] = Latent
