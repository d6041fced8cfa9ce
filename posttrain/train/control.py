"""A run that trains a policy to act on an environment: on-policy segments or episodes, or a replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posttrain.core import Batch, Curriculum, Groups, Method
from posttrain.core.errors import UserError
from posttrain.core.seeds import derive
from posttrain.data.replay.uniform import Replay
from posttrain.evaluate.control import returns
from posttrain.evaluate.intervals import mean_interval
from posttrain.nets.mlp import Normalizer
from posttrain.policies.control import KINDS, ActionValue, StateValue, Temperature, decisions
from posttrain.rollout.environments import Environments, make, spaces_of
from posttrain.rollout.replayed import ReplaySource
from posttrain.rollout.segments import EpisodeSource, SegmentSource
from posttrain.train.config import ControlConfig
from posttrain.train.objective import method_name, updates
from posttrain.train.setting import Sample


class Experience:
    """A batch, as the setting's own material."""

    def __init__(self, batch: Batch, raw: Batch) -> None:
        self.batch, self.raw = batch, raw


class ControlSetting:
    """The `Setting` of control."""

    def __init__(self, method: Method[Any], config: ControlConfig, curriculum: Curriculum | None) -> None:
        self.method, self.config, self.rounds = method, config, config.rounds
        env = make(config.task)
        self.spaces = spaces_of(env)
        env.close()
        self.kind = source_of(method, config)
        kind = policy_of(method, config, self.spaces.numbered)
        self.normalizer = Normalizer(self.spaces.obs) if config.normalize_obs else None
        self.policy = KINDS[kind](self.spaces, config.width, config.layers, config.activation, self.normalizer,
                                  self._stream("policy"))
        self.notes: tuple[str, ...] = ()
        self.facts = {"kind": kind, "source": self.kind}
        self.scale = RewardScale(config.envs, getattr(method, "discount", 1.0)) if config.normalize_reward else None

    def _stream(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive(self.config.seed, name))

    # ------------------------------------------------------------------ networks

    def networks(self) -> Mapping[str, Callable[[], Any]]:
        def frozen(build: Callable[[], Any]) -> Callable[[], Any]:
            import copy

            return lambda: copy.deepcopy(build()).requires_grad_(False)

        return {"reference": self.policy.initial, "anchor": self.policy.initial, "policy_target": self.policy.initial,
                "critic": lambda: self.critic, "critic_target": frozen(lambda: self.critic),
                "q": lambda: self.q, "q_target": frozen(lambda: self.q), "temperature": Temperature}

    @cached_property
    def critic(self) -> StateValue:
        config = self.config
        return StateValue(self.spaces, config.width, config.layers, config.activation, self.normalizer,
                          self._stream("critic"))

    @cached_property
    def q(self) -> ActionValue:
        config = self.config
        return ActionValue(self.spaces, getattr(self.method, "members", 2), config.width, config.layers,
                           config.activation, self._stream("q"), getattr(self.method, "layer_norm", False))

    # ------------------------------------------------------------------ what a step learns from

    def open(self, stack: ExitStack, rollouts: Path) -> None:
        """Environments are made when they are first needed, after a resumed run has said where they stand."""

    @cached_property
    def envs(self) -> Environments:
        return Environments(self.config.task, self.config.envs, self.config.seed)

    @cached_property
    def replay(self) -> Replay:
        return Replay(self.spaces, self.config.capacity)

    @cached_property
    def source(self) -> Any:
        config = self.config
        if self.kind == "segments":
            return SegmentSource(self.envs, self.policy, config.horizon, config.seed)
        if self.kind == "episodes":
            return EpisodeSource(config.task, self.policy, config.starts, config.samples, config.seed)
        return ReplaySource(self.envs, self.policy, self.replay, config.batch_size, self.method.noises,
                            config.random_steps, config.exploration, config.seed)

    def next(self, step: int) -> Experience:
        batch = self.source.next(step)
        return Experience(self.scale(batch) if self.scale and isinstance(batch, Groups) else batch, batch)

    def learnt(self, step: int, material: Experience, batch: Batch) -> dict[str, float]:
        raw = material.raw
        if isinstance(raw, Groups) and self.normalizer:
            self.normalizer.observe(decisions(raw)[0])
        if isinstance(raw, Groups) and self.kind == "episodes":
            ended = list(zip(raw.reward.tolist(), raw.mask.sum(1).tolist(), strict=True))
        else:
            ended = self.envs.take_finished()
        if not ended:
            return {}
        returns, lengths = zip(*ended, strict=True)
        return {"reward": sum(returns) / len(ended), "length": sum(lengths) / len(ended)}

    def sample(self, material: Experience, batch: Batch) -> Sample | None:
        return None

    def state(self) -> dict[str, Any]:
        return {"envs": {} if self.kind == "episodes" else self.envs.state(),
                "scale": self.scale.state() if self.scale else {}}

    def tensors(self) -> dict[str, Tensor]:
        parts = {"normalizer": self.normalizer.state_dict() if self.normalizer else {},
                 "replay": self.replay.tensors() if self.kind == "replay" else {}}
        return {f"{part}/{name}": x for part, kept in parts.items() for name, x in kept.items()}

    def load(self, state: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
        def part(name: str) -> dict[str, Tensor]:
            return {key.partition("/")[2]: x for key, x in tensors.items() if key.startswith(f"{name}/")}

        if self.kind != "episodes":
            self.envs.restore(state["envs"])
        if self.normalizer:
            self.normalizer.load_state_dict(part("normalizer"))
        if self.scale:
            self.scale.load(state["scale"])
        if self.kind == "replay":
            self.replay.load(part("replay"))

    # ------------------------------------------------------------------ how good it is

    def evaluate(self, when: str) -> dict[str, Any]:
        """Returns of whole episodes from fixed starts, each action the likeliest."""
        config = self.config
        played = returns(self.policy, config.task, config.eval_episodes, config.seed)
        scores = [r for r, _ in played]
        return {"return": sum(scores) / len(scores), "interval": mean_interval(scores), "scores": scores,
                "length": sum(n for _, n in played) / len(played)}

    # ------------------------------------------------------------------ what will be done, in words

    def describe(self, method: Method[Any]) -> list[tuple[str, str]]:
        config = self.config
        what = {
            "segments": f"{config.envs} environments × {config.horizon} steps = {config.envs * config.horizon} actions",
            "episodes": f"{config.starts} starts × {config.samples} = {config.starts * config.samples} episodes",
            "replay": f"{config.envs} actions, then {config.batch_size} transitions of the last {config.capacity}",
        }[self.kind]
        trained = sum(p.numel() for p in self.policy.parameters())
        return [
            ("batch", f"{what}; {updates(method)}, {config.rounds} batches a step"),
            ("clip unit", f"one {self.policy.decision}"),
            ("policy", f"{self.facts['kind']} of {self.spaces.action} {'numbered actions' * self.spaces.numbered}"
                       f"{'numbers in [−1, 1]' * (not self.spaces.numbered)} on {config.task}: {trained} weights"),
        ]


class RewardScale:
    """Rewards divided by the deviation of the discounted return, clipped at ± 10   (Engstrom et al., 2005.12729)."""

    def __init__(self, envs: int, discount: float) -> None:
        self.discount, self.returns, self.seen = discount, [0.0] * envs, Normalizer(1)

    def __call__(self, batch: Groups) -> Groups:
        """The batch's rows in order, each of them one environment's next stretch of an episode."""
        rewards = batch.step_reward
        running = torch.zeros_like(rewards)
        total = torch.zeros(len(batch))
        for t in range(rewards.shape[1]):
            total = self.discount * total + rewards[:, t]
            running[:, t] = total
        self.seen.observe(running[batch.mask][:, None])
        scaled = torch.where(batch.mask, (rewards / (self.seen.std.float() + 1e-8)).clamp(-10, 10), 0.0)
        return batch.replace(rewards=scaled, reward=scaled.sum(1))

    def state(self) -> dict[str, Any]:
        return {name: x.tolist() for name, x in self.seen.state_dict().items()}

    def load(self, state: Mapping[str, Any]) -> None:
        self.seen.load_state_dict({name: torch.tensor(x, dtype=torch.float64) for name, x in state.items()})


def source_of(method: Method[Any], config: ControlConfig) -> str:
    """What a batch holds.

    Raises:
        UserError: where the method cannot learn from that.
    """
    if method.learns_from in ("demonstrations", "both"):
        raise UserError(f"method = {method_name(method)!r}: learns from given answers, and an environment gives none")
    allowed = ("replay",) if method.learns_from == "transitions" else ("segments", "episodes")
    if config.source == "auto":
        return allowed[0] if "critic" in method.needs or len(allowed) == 1 else "episodes"
    if config.source not in allowed:
        raise UserError(f"source = {config.source!r}: {method_name(method)} learns from {' or '.join(allowed)}")
    return config.source


def policy_of(method: Method[Any], config: ControlConfig, numbered: bool) -> str:
    """The kind of policy.

    Raises:
        UserError: where it does not fit the environment's actions.
    """
    kind = config.policy
    if kind == "auto":
        kind = "categorical" if numbered else "gaussian"
    if (kind == "categorical") != numbered:
        raise UserError(f"policy = {kind!r}: the actions of {config.task!r} are "
                        f"{'numbered' if numbered else 'numbers in a range'}")
    return kind


