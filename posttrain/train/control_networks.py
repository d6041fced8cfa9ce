"""The networks of a control run: each is built once, when it is first asked for, from the run's options."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from posttrain.core import Method
from posttrain.core.errors import UserError
from posttrain.core.seeds import derive
from posttrain.data.dataset import Dataset, told
from posttrain.data.steps import Spaces
from posttrain.nets.mlp import Normalizer, Perceptron
from posttrain.nets.renorm import Renorm
from posttrain.policies import control_ensemble, control_family  # noqa: F401  # add their kinds
from posttrain.policies.acting import ControlPolicy
from posttrain.policies.adapting import Adapting, InverseEncoder
from posttrain.policies.behaviour import Behaviour
from posttrain.policies.control import KINDS, ActionValue, Greedy, PostValue, StateValue, Temperature, load
from posttrain.policies.dynamics import Dynamics
from posttrain.policies.latent import Encoder, Latent, LatentValue
from posttrain.policies.mapped import Channels, MappedGreedy, MappedValue
from posttrain.policies.sequence import Sequence
from posttrain.policies.stretches import StretchModel
from posttrain.train.config import ControlConfig
from posttrain.train.logged import asking, believed, searched
from posttrain.train.start import Start


class ControlNetworks:
    """What `Models` of a control run may hold."""

    def __init__(self, method: Method[Any], config: ControlConfig, spaces: Spaces, kind: str,
                 normalizer: Normalizer | None, start: Start | None, logged: Dataset | None = None) -> None:
        """kind: of policy.  normalizer: shared by all.  start: what some of them begin with.  logged: learnt from."""
        self.method, self.config, self.spaces, self.kind = method, config, spaces, kind
        self.normalizer, self.start, self.logged = normalizer, start, logged
        self.built: dict[str, nn.Module] = {}  # by name in `Models`

    def builders(self) -> Mapping[str, Callable[[], Any]]:
        """By name in `Models`."""
        def target(name: str) -> Callable[[], Any]:
            return lambda: self._begun(f"{name}_target", copy.deepcopy(getattr(self, name)).requires_grad_(False))

        own = ("policy", "critic", "cost_critic", "critic_post", "q", "temperature", "encoder",
               "behaviour")
        return {**{name: partial(getattr, self, name) for name in own},
                **{f"{name}_target": target(name) for name in ("policy", "critic", "q", "encoder")},
                "vae": lambda: Behaviour(self.spaces, self.config.width, self.normalizer, self._stream("vae")),
                "dynamics": lambda: believed(self.dynamics, self.method, self.config),
                "logged": lambda: searched(self.logged, self.normalizer),
                **{name: partial(self.policy.parts.get, name) for name in self.policy.parts},
                **{name: partial(self._net, name) for name in self.method.nets},
                **({"teacher": self._teacher} if self.config.teacher else {}),
                "reference": self.policy.initial, "anchor": self.policy.initial}

    def _begun(self, name: str, network: Any) -> Any:
        """A network that was just built, with what it begins with."""
        if self.start:
            self.start.fill(name, network)
        self.built[name] = network
        return network

    def _stream(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive(self.config.seed, name))

    def _own(self, name: str, default: Any) -> Any:
        """A hyperparameter that shapes a network; `default` where the method has none of that name."""
        return getattr(self.method, name, default)

    @property
    def _perceptron(self) -> tuple[int, int, str]:
        return self.config.width, self.config.layers, self.config.activation

    @property
    def _renorm(self) -> Renorm | None:
        found: tuple[float, int] | None = self._own("renorm", None)
        return found and Renorm(*found)

    # ------------------------------------------------------------------ each of them

    @cached_property
    def policy(self) -> ControlPolicy:
        policy: ControlPolicy = self._begun("policy", self._policy())
        return policy

    def _policy(self) -> ControlPolicy:
        drawn = self._stream("policy")
        if self.kind == "greedy":
            assert isinstance(self.q, ActionValue)
            return MappedGreedy(self.q) if isinstance(self.q, MappedValue) else Greedy(self.q)
        if isinstance(self.encoder, Encoder):
            return Latent(self.encoder, drawn)
        if self.encoder:
            return Adapting(self.encoder, drawn)
        if self.kind == Sequence.kind and self.logged:
            return asking(self.logged, self.config, self.normalizer, drawn)
        kind = KINDS[self.kind]
        more = {name: getattr(self.config, name) for name in kind.options} | ({"q": self.q} if kind.acts_by_q else {})
        return kind(self.spaces, *self._perceptron, self.normalizer, drawn, remembered=self.config.memory,
                    renorm=self._renorm, **more)

    def _net(self, name: str) -> Perceptron:
        """One of the method's own."""
        net = self.method.nets[name]
        width = {"obs": self.spaces.obs, "next_obs": self.spaces.obs, "action": self.spaces.action}
        says = width[net.says] if isinstance(net.says, str) else net.says
        return Perceptron([sum(width[told] for told in net.told), *[self.config.width] * self.config.layers, says],
                          self.config.activation, self._stream(name))

    def _teacher(self) -> ControlPolicy:
        folder = Path(self.config.teacher).expanduser()
        found = load(folder / "final" if (folder / "final").is_dir() else folder)
        if found.spaces != self.spaces:
            raise UserError(f"teacher = {self.config.teacher!r}: takes {told(found.spaces)}, and {self.config.task} "
                            f"has {told(self.spaces)}")
        return found.requires_grad_(False)

    @cached_property
    def behaviour(self) -> ControlPolicy:
        """Another policy that begins as the policy does and sees as it sees."""
        made: ControlPolicy = copy.deepcopy(self.policy)
        made.normalizer = self.policy.normalizer
        return made

    @cached_property
    def critic(self) -> StateValue:
        return self._state_value("critic")

    @cached_property
    def cost_critic(self) -> StateValue:
        return self._state_value("cost_critic")

    def _state_value(self, name: str) -> StateValue:
        value: StateValue = self._begun(name, StateValue(
            self.spaces, *self._perceptron, self.normalizer, self._stream(name), remembered=self.config.memory))
        return value

    @cached_property
    def critic_post(self) -> PostValue:
        critic: PostValue = self._begun("critic_post", PostValue(
            self.spaces, *self._perceptron, self.normalizer, self._stream("critic_post")))
        return critic

    @cached_property
    def encoder(self) -> Encoder | InverseEncoder | None:
        """What the policy acts by; none where it acts by observations."""
        drawn, found = self._stream("encoder"), None
        if self.kind == "latent":
            found = self._begun("encoder", Encoder(self.spaces, *self._perceptron, drawn, self._own("atoms", 0)))
        elif self.kind == "adapting":
            found = self._begun("encoder", InverseEncoder(self.spaces, *self._perceptron, drawn))
        return found

    @cached_property
    def q(self) -> ActionValue | LatentValue:
        q: ActionValue | LatentValue = self._begun("q", self._q())
        return q

    def _q(self) -> ActionValue | LatentValue:
        config, drawn, members = self.config, self._stream("q"), self._own("members", 2)
        if isinstance(self.encoder, Encoder):
            return LatentValue(members, *self._perceptron, drawn)
        shape = config.q_width or config.width, config.layers, config.activation
        if channels := self._own("channels", None):
            return MappedValue(self.spaces, Channels(*channels), *shape, config.dueling, drawn)
        spaces = self.spaces._replace(obs=config.width) if self.encoder else self.spaces
        return ActionValue(spaces, members, *shape, drawn, self._own("layer_norm", False), self._own("atoms", 0),
                           config.dueling, self._own("support", None), self.normalizer, self._renorm)

    @cached_property
    def dynamics(self) -> Dynamics:
        config = self.config
        return Dynamics(self.spaces, config.model_elites, config.model_width, self._stream("dynamics")
                        ).requires_grad_(False)

    @cached_property
    def stretches(self) -> StretchModel:
        config = self.config
        return StretchModel(self.spaces, config.synthetic, config.synthetic_width, self._stream("stretches")
                            ).requires_grad_(False)

    @cached_property
    def temperature(self) -> Temperature:
        temperature: Temperature = self._begun("temperature", Temperature())
        return temperature
