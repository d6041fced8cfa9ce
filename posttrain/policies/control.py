"""Policies that act on an environment: what they say of an action given an observation, and their critics.

Actions with a range are numbers in [−1, 1], whatever the environment's range is.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from posttrain.core import Batch
from posttrain.core.errors import UserError
from posttrain.core.policy import Predictions
from posttrain.data.steps import Spaces
from posttrain.nets import squashed
from posttrain.nets.gru import Memory
from posttrain.nets.mlp import MLP, Dropout, Ensemble, Normalizer
from posttrain.nets.renorm import Renorm
from posttrain.policies.acting import ControlPolicy, Observer, Sampled, over, steps_of
from posttrain.policies.exploring import BangBang, StateDependent

LOG_STD = (-5.0, 2.0)  # of a squashed Gaussian and a bounded one
EDGE = 1 - 1e-6  # how near to ± 1 an action is taken to be where it was given


class Gaussian(ControlPolicy):
    """a ~ N(μ(s), σ²), σ the same in every state; what lies outside [−1, 1] is cut off by the environment."""

    kind = "gaussian"
    outputs = 1

    def __init__(self, spaces: Spaces, *arguments: Any, **options: Any) -> None:
        super().__init__(spaces, *arguments, **options)
        self.log_std = nn.Parameter(torch.zeros(spaces.action))

    @property
    def _log_std(self) -> Tensor:
        return self.log_std

    def sample(self, obs: Tensor, noise: Tensor) -> Sampled:
        return Sampled(self.mode(obs) + self._log_std.exp() * noise, lambda: self._density(noise))

    def mode(self, obs: Tensor) -> Tensor:
        out: Tensor = self(obs)
        return out

    def log_density(self, obs: Tensor, action: Tensor) -> Tensor:
        return self._density((action - self.mode(obs)) * (-self._log_std).exp())

    def _density(self, z: Tensor) -> Tensor:
        """log density of μ + σ z, [B]."""
        return -0.5 * (z * z).sum(-1) - (self._log_std + 0.5 * math.log(2 * math.pi)).sum()

    def entropy(self, obs: Tensor) -> Tensor:
        return (self._log_std + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(len(obs))

    def kl_from(self, batch: Batch, other: Gaussian) -> Tensor:
        """KL(other ‖ self) of each decision, [B, T]."""
        with torch.no_grad():
            mean = other.mode(other.seen(batch))
        return over(batch, _kl(mean, other._log_std.detach(), self.mode(self.seen(batch)), self._log_std))


class BoundedGaussian(Gaussian):
    """a ~ N(tanh μ(s), σ²), log σ in [−5, 2]: no mean outside the range, and no density without bound.

    Kostrikov et al. 2021 (2110.06169), in the authors' code.
    """

    kind = "bounded-gaussian"
    last_gain = math.sqrt(2)

    @property
    def _log_std(self) -> Tensor:
        return self.log_std.clamp(*LOG_STD)

    def mode(self, obs: Tensor) -> Tensor:
        return torch.tanh(self(obs))


class SquashedGaussian(ControlPolicy):
    """a = tanh u, u ~ N(μ(s), σ(s)²), so log π(a) = log N(u) − Σ log(1 − a²)   (Haarnoja et al. 2018, app. C)."""

    kind = "squashed-gaussian"
    outputs = 2
    last_gain = 1.0

    def _moments(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return squashed.split(self(obs), LOG_STD)

    def sample(self, obs: Tensor, noise: Tensor) -> Sampled:
        action, density = squashed.draw(self(obs), noise, LOG_STD)
        return Sampled(action, lambda: density)

    def mode(self, obs: Tensor) -> Tensor:
        return torch.tanh(self._moments(obs)[0])

    def log_density(self, obs: Tensor, action: Tensor) -> Tensor:
        mean, log_std = self._moments(obs)
        u = torch.atanh(action.clamp(-EDGE, EDGE))
        return squashed.log_density(u, (u - mean) * (-log_std).exp(), log_std)

    def kl_from(self, batch: Batch, other: SquashedGaussian) -> Tensor:
        """KL(other ‖ self) of each decision, [B, T]."""
        with torch.no_grad():
            theirs = other._moments(other.seen(batch))
        return over(batch, _kl(*theirs, *self._moments(self.seen(batch))))

    def entropy(self, obs: Tensor) -> Tensor:
        raise UserError("policy = 'squashed-gaussian': its entropy has no closed form; a method that needs it takes "
                        "'gaussian'")


def _kl(mean: Tensor, log_std: Tensor, to_mean: Tensor, to_log_std: Tensor) -> Tensor:
    """KL( N(mean, std²) ‖ N(to_mean, to_std²) ), [B]; one that squashes both alike leaves it as it is."""
    gap = to_log_std - log_std
    return (gap + ((-2 * gap).exp() + ((mean - to_mean) * (-to_log_std).exp()) ** 2 - 1) / 2).sum(-1)


class Deterministic(ControlPolicy):
    """a = tanh μ(s): no likelihood, so only methods that need none can train it."""

    kind = "deterministic"
    outputs = 1
    last_gain = 1.0

    def sample(self, obs: Tensor, noise: Tensor) -> Sampled:
        """The same action whatever the noise; whoever explores adds its own."""
        action = self.mode(obs)
        return Sampled(action, lambda: action.new_zeros(len(action)))

    def mode(self, obs: Tensor) -> Tensor:
        return torch.tanh(self(obs))

    def log_density(self, obs: Tensor, action: Tensor) -> Tensor:
        raise UserError("policy = 'deterministic': has no log-probability; this method needs 'gaussian' or "
                        "'squashed-gaussian'")

    def entropy(self, obs: Tensor) -> Tensor:
        raise UserError("policy = 'deterministic': has no entropy")


class Categorical(ControlPolicy):
    """π(a | s) = softmax of the perceptron's outputs, over numbered actions."""

    kind = "categorical"
    outputs = 1

    def sample(self, obs: Tensor, noise: Tensor) -> Sampled:
        """By inversion of the distribution function at uniform noise [B, 1]."""
        logp = self(obs).log_softmax(-1)
        below = logp.detach().exp().cumsum(-1)
        action = (below < noise * below[:, -1:]).sum(-1).clamp(max=self.spaces.action - 1)
        return Sampled(action, lambda: logp.gather(1, action[:, None])[:, 0])

    def mode(self, obs: Tensor) -> Tensor:
        out: Tensor = self(obs).argmax(-1)
        return out

    def log_density(self, obs: Tensor, action: Tensor) -> Tensor:
        logp: Tensor = self(obs).log_softmax(-1).gather(1, action[:, None])[:, 0]
        return logp

    def entropy(self, obs: Tensor) -> Tensor:
        logp: Tensor = self(obs).log_softmax(-1)
        return -(logp.exp() * logp).sum(-1)

    def predict(self, batch: Batch) -> Predictions:
        logp = self(self.seen(batch)).log_softmax(-1)
        return lambda rows: logp[rows]


class Greedy(ControlPolicy):
    """The action that a Q network thinks best: no weights but Q's, no likelihood; whoever explores acts otherwise."""

    kind = "greedy"

    def __init__(self, q: ActionValue) -> None:
        nn.Module.__init__(self)
        self.spaces, self.q, self.normalizer, self.memory = q.spaces, q, None, None

    def forward(self, obs: Tensor) -> Tensor:
        return self.q.worth(obs)

    def sample(self, obs: Tensor, noise: Tensor) -> Sampled:
        """The same action whatever the noise."""
        action = self.mode(obs)
        return Sampled(action, lambda: obs.new_zeros(len(action)))

    def mode(self, obs: Tensor) -> Tensor:
        return self.q.worth(obs).argmax(-1)

    def log_density(self, obs: Tensor, action: Tensor) -> Tensor:
        raise UserError("policy = 'greedy': has no log-probability; this method needs 'categorical'")

    def entropy(self, obs: Tensor) -> Tensor:
        raise UserError("policy = 'greedy': has no entropy")

    @property
    def shape(self) -> dict[str, Any]:
        return self.q.shape

    @classmethod
    def of(cls, spaces: Spaces, **shape: Any) -> ControlPolicy:
        support = torch.zeros(shape["atoms"]) if shape.pop("supported") else None
        return cls(ActionValue(spaces, generator=torch.Generator(), support=support, **shape))


KINDS: dict[str, type[ControlPolicy]] = {kind.kind: kind for kind in (
    Gaussian, BoundedGaussian, SquashedGaussian, StateDependent, BangBang, Deterministic, Categorical, Greedy)}
NUMBERED = ("categorical", "greedy")  # those whose actions are


def load(folder: Path) -> ControlPolicy:
    """A policy that `save` wrote.

    Raises:
        UserError: if the folder holds none.
    """
    from posttrain.policies import (  # noqa: F401  # add their kinds
        adapting,
        control_ensemble,
        control_family,
        control_noise,
        latent,
        mapped,
        sequence,
    )
    try:
        told = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
        policy = KINDS[told.pop("kind")].of(Spaces(**told.pop("spaces")), **told)
        policy.load_state_dict(load_file(folder / "weights.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"policy = '{folder}': holds no control policy ({type(error).__name__}: {error})") from error
    return policy


class StateValue(Observer):
    """V(s): what a state is worth."""

    role = "critic"

    def __init__(self, spaces: Spaces, width: int, layers: int, activation: str, normalizer: Normalizer | None,
                 generator: torch.Generator, *, remembered: int = 0) -> None:
        super().__init__()
        self.spaces, self.normalizer = spaces, normalizer
        self.memory = Memory(spaces.obs, remembered, generator) if remembered else None
        self.body = MLP([spaces.obs + remembered, *[width] * layers, 1], activation, generator, 1.0)

    def forward(self, seen: Tensor) -> Tensor:
        """[B, obs + N] -> [B]."""
        out: Tensor = self.body(self._normalized(seen))[..., 0]
        return out

    def values(self, batch: Batch) -> Tensor:
        return over(batch, self(self.seen(batch)))

    def after(self, batch: Batch) -> Tensor:
        out: Tensor = self(self.seen_last(batch))
        return out


class PostValue(StateValue):
    """V(s^x): what a state is worth once the action has done its part and before chance does its own."""

    role = "critic_post"

    def seen(self, batch: Batch) -> Tensor:
        """The post-decision states of a batch's n masked decisions, in order, [n, obs]."""
        post = steps_of(batch).post
        assert post is not None
        return post[batch.mask]


class ActionValue(nn.Module):
    """Q(s, a): what an action is worth in a state, by an ensemble of K; where actions are numbered, of each of them.

    With N atoms it gives N numbers of each action, which say how its return is distributed: logits over a support,
    or without one quantiles.
    """

    def __init__(self, spaces: Spaces, members: int, width: int, layers: int, activation: str,
                 generator: torch.Generator, layer_norm: bool = False, atoms: int = 0, dueling: bool = False,
                 support: Tensor | None = None, normalizer: Normalizer | None = None,
                 renorm: Renorm | None = None) -> None:
        """atoms: N, 0 for one plain number; support: [N], the returns that logits are of.

        dueling: V(s) + A(s, a) − mean of A(s, ·), both from the last hidden layer (Wang et al., 1511.06581).
        """
        super().__init__()
        self.spaces, self.atoms, self.dueling, self.normalizer = spaces, atoms, dueling, normalizer
        self.shape: dict[str, Any] = {
            "members": members, "width": width, "layers": layers, "activation": activation, "layer_norm": layer_norm,
            "atoms": atoms, "dueling": dueling, "supported": support is not None}
        inputs = spaces.obs if spaces.numbered else spaces.obs + spaces.action
        self.columns = spaces.action + dueling if spaces.numbered else 1
        self.body = Ensemble(members, [inputs, *[width] * layers, self.columns * max(atoms, 1)], activation,
                             generator, layer_norm, renorm)
        self.support: Tensor | None
        self.register_buffer("support", support)

    @property
    def module(self) -> nn.Module:
        return self

    def _seen(self, obs: Tensor) -> Tensor:
        return obs if self.normalizer is None else self.normalizer(obs)

    def forward(self, obs: Tensor, action: Tensor, dropout: Dropout | None = None) -> Tensor:
        """[B, obs], [B, A] or [B] long -> [K, B], or [K, B, N]; [K, B, obs], [K, B, A] gives each member its own."""
        if self.spaces.numbered:
            return self.every(obs)[:, torch.arange(len(action)), action]
        return self._apart(self.body(torch.cat([self._seen(obs), action], -1), dropout))[:, :, 0]

    def fixed(self, obs: Tensor, action: Tensor, dropout: Dropout | None = None) -> Tensor:
        """The same with gradient to the action alone, for a policy to climb."""
        return self._apart(self.body.fixed(torch.cat([self._seen(obs), action], -1), dropout))[:, :, 0]

    def least(self, obs: Tensor, action: Tensor) -> Tensor:
        """The least that any member says, [B], with gradient to the action alone, for a policy to climb."""
        return self.body.least(self._seen(obs), action)

    def first(self, obs: Tensor, action: Tensor) -> Tensor:
        """The same of the first member alone, [B]: the others are not computed."""
        return self._apart(self.body.fixed(torch.cat([self._seen(obs), action], -1), members=1))[0, :, 0]

    def every(self, obs: Tensor) -> Tensor:
        """Of every numbered action: [B, obs] -> [K, B, actions], or [K, B, actions, N]."""
        out = self._apart(self.body(self._seen(obs)))
        if self.dueling:
            advantage = out[:, :, 1:]
            out = out[:, :, :1] + advantage - advantage.mean(2, keepdim=True)
        return out

    def expected(self, out: Tensor) -> Tensor:
        """The mean of the return that N atoms stand for: [..., N] -> [...]; a plain number is one already."""
        if not self.atoms:
            return out
        return out.mean(-1) if self.support is None else out.softmax(-1) @ self.support

    def worth(self, obs: Tensor) -> Tensor:
        """What every numbered action is worth in the mean of the ensemble, [B, actions]."""
        return self.expected(self.every(obs)).mean(0)

    def _apart(self, out: Tensor) -> Tensor:
        """[K, B, columns · N] -> [K, B, columns, N], without N where there are no atoms."""
        return out.unflatten(-1, (self.columns, self.atoms)) if self.atoms else out


class Temperature(nn.Module):
    """One positive number, e^x, x starting at 0."""

    def __init__(self, initial: float = 1.0) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(initial)))

    @property
    def module(self) -> nn.Module:
        return self

    def forward(self) -> Tensor:
        return self.log.exp()


