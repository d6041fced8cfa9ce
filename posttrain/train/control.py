"""A run that trains a policy to act on an environment: on-policy segments or episodes, a replay, or logged data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posttrain.core import Batch, Curriculum, Groups, Method, Models
from posttrain.data.replay.hindsight import HindsightReplay
from posttrain.data.replay.prioritized import PrioritizedReplay
from posttrain.data.replay.uniform import Replay
from posttrain.evaluate.control import mean_cost, returns
from posttrain.evaluate.intervals import mean_interval
from posttrain.nets.mlp import Normalizer
from posttrain.policies.acting import decisions
from posttrain.rollout.environments import Environments, Played, check_costs, make, reset, spaces_of
from posttrain.rollout.goals import has_goals
from posttrain.rollout.history import History
from posttrain.rollout.imagined import Imagined
from posttrain.rollout.logged import BesideSource, DatasetSource, StretchSource
from posttrain.rollout.replayed import Drift, Exploration, ReplaySource
from posttrain.rollout.segments import EpisodeSource, SegmentSource
from posttrain.rollout.synthetic import SyntheticSource
from posttrain.train import dynamics, stretches
from posttrain.train.config import ControlConfig
from posttrain.train.control_checks import (
    check_acting,
    check_post,
    check_replay,
    check_teacher,
    logged_rows,
    notes_of,
    open_datasets,
    policy_of,
    set_noise,
    source_of,
)
from posttrain.train.control_networks import ControlNetworks
from posttrain.train.logged import check_imagined, episode_curriculum, modelled
from posttrain.train.objective import counted, method_name, updates
from posttrain.train.reward_scale import RewardScale
from posttrain.train.setting import Sample
from posttrain.train.start import SCALE, keep, open_start, shapes_of


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
        reset(env, config.seed)  # an environment that cannot begin is told before anything is written
        goals = has_goals(env)
        if "critic_post" in method.needs:
            check_post(env, config.task)
        if "cost_critic" in method.needs:
            check_costs(env, config.task, method_name(method))
        env.close()
        self.kind = source_of(method, config)
        check_imagined(config)
        self.modelled = modelled(method, config)
        self.logged = open_datasets(config, self.spaces) if config.dataset else None
        self.curriculum = episode_curriculum(curriculum, config)
        self.from_log = logged_rows(self.kind, config)
        self.acts = self.kind == "segments" or (  # in environments that go on
            self.kind != "episodes" and self.from_log < config.batch_size and not config.synthetic)
        stretches.check_synthetic(method, config, self.logged)
        kind = policy_of(method, config, self.spaces.numbered)
        self.normalizer = Normalizer(self.spaces.obs) if config.normalize_obs else None
        if self.normalizer and self.logged:
            self.normalizer.observe(self.logged.obs)
        check_acting(method, config, kind)
        check_replay(method, config, self.spaces.numbered, goals)
        check_teacher(method, config)
        self.shapes = shapes_of(self.spaces, kind, vars(config), vars(method))
        self.start = open_start(method, config, self.shapes)
        self.nets = ControlNetworks(method, config, self.spaces, kind, self.normalizer, self.start, self.logged)
        self.policy = self.nets.policy
        self.models = Models(None, **self.nets.built)  # until the run has all
        if not (self.start and "policy" in self.start.networks):
            set_noise(self.policy, config)
        self.notes = notes_of(self.logged, config)
        self.facts: dict[str, Any] = {"kind": kind, "source": self.kind,
                                      "curriculum": dataclasses.asdict(self.curriculum) if self.curriculum else {}}
        if self.start:
            self.notes += (self.start.told(method),)
            self.facts["start"] = {"from": self.start.source, "networks": self.start.networks}
        if self.logged:
            self.facts["dataset"] = {"transitions": len(self.logged), "episodes": len(self.logged.returns),
                                     "mean_return": float(self.logged.returns.mean())}
        self.drift = Drift(config.exploration_memory)
        self.scale = RewardScale(getattr(method, "discount", 1.0)) if config.normalize_reward else None
        if self.start:
            self.start.fill_statistics(self.normalizer, self.scale.seen if self.scale else None)

    def networks(self) -> Mapping[str, Callable[[], Any]]:
        return self.nets.builders()

    # ------------------------------------------------------------------ what a step learns from

    def open(self, stack: ExitStack, rollouts: Path) -> None:
        """Environments are made when they are first needed, after a resumed run has said where they stand.

        A model of them is fitted now, unless a resumed run has brought it.
        """
        config = self.config
        if self.modelled and self.logged and not self.nets.dynamics.fitted:
            dynamics.fit(self.nets.dynamics, self.logged, config.model_members, config.model_updates, config.seed)
        if config.synthetic and self.logged and not self.nets.stretches.fitted:
            stretches.fit(self.nets.stretches, self.logged, config.synthetic_updates, config.seed)
        if self.start and not (rollouts.parent / "start").is_dir():
            self.start.write(rollouts.parent / "start")

    @cached_property
    def envs(self) -> Any:
        """What is acted in: the task's own environments, or a model of them."""
        config = self.config
        if config.imagined and self.logged:
            return Imagined(self.nets.dynamics, self.logged.obs, config.envs, config.imagined, config.seed)
        return Environments(config.task, config.envs, config.seed)

    @property
    def _replays(self) -> bool:
        return self.acts and self.kind in ("replay", "dataset")

    @cached_property
    def replay(self) -> Replay:
        config, discount = self.config, getattr(self.method, "discount", 1.0)
        if config.replay == "prioritized":
            return PrioritizedReplay(self.spaces, config.capacity, config.envs, config.span, discount,
                                     config.priority, config.correction, config.steps * config.rounds,
                                     self.method.ahead)
        if config.replay == "hindsight":
            return HindsightReplay(self.spaces, config.capacity, config.envs, discount, self.envs.achieved.shape[1],
                                   self.envs.judge, config.relabels)
        return Replay(self.spaces, config.capacity, config.envs, config.span, discount, self.method.ahead)

    @cached_property
    def source(self) -> Any:
        config = self.config
        critic = self.nets.critic if "critic" in self.method.needs else None
        if self.method.learns_from == "stretches" and self.logged:
            return StretchSource(self.logged, config.batch_size, config.context, config.seed, self.curriculum)
        if self.kind == "segments":
            actor = self.nets.behaviour if "behaviour" in self.method.needs else self.policy
            segments = SegmentSource(self.envs, actor, config.segment, config.seed, critic, config.recall)
            if self.method.learns_from == "both":
                return BesideSource(segments, self.logged, self.from_log, self.method.noises, config.seed)
            return History(segments, config.history) if config.history else segments
        if self.kind == "episodes":
            return EpisodeSource(config.task, self.policy, config.starts, config.samples, config.seed, critic,
                                 config.recall)
        acting = ReplaySource(
            self.envs, self.policy, self.replay, config.batch_size - self.from_log, self.method.noises,
            Exploration(config.random_steps, config.exploration, config.epsilon_start, config.epsilon,
                        config.epsilon_rounds, config.policy_steps), config.replay_ratio, config.seed,
            self._act, self.method.candidates, self.drift) if self.acts else None
        if self.logged is None:
            return acting
        beside = self.synthetic if config.synthetic else acting
        return DatasetSource(self.logged, self.from_log, self.method.noises, getattr(self.method, "discount", 1.0),
                             config.span, config.seed, beside, self.method.ahead, self.curriculum)

    @cached_property
    def synthetic(self) -> SyntheticSource:
        config = self.config
        return SyntheticSource(self.nets.stretches, config.batch_size - self.from_log, self.method.noises,
                               config.synthetic_count, config.synthetic_every, config.synthetic_passes, config.seed,
                               self._guide)

    def meet(self, models: Models) -> None:
        self.models = models

    def _guide(self, obs: Tensor, action: Tensor, taken: int) -> Tensor | None:
        return self.method.guide(self.models, obs, action, taken, self.config.synthetic_passes)

    def _act(self, obs: Tensor, noise: Tensor) -> Tensor:
        action = self.method.act(self.models, obs, noise)
        led = self.method.led(self.models, self.envs.age)
        if led is None:
            return action
        return torch.where(led if action.dim() == 1 else led[:, None], self.models.teacher.mode(obs), action)

    def next(self, step: int) -> Experience:
        batch = self.source.next(step)
        return Experience(self.scale(batch, step) if self.scale and isinstance(batch, Groups) else batch, batch)

    def learnt(self, step: int, material: Experience, batch: Batch) -> dict[str, float]:
        raw = material.raw
        if self.kind == "replay":
            self.replay.learnt(batch.extra)
        if isinstance(raw, Groups) and self.normalizer and self.kind != "dataset":
            self.normalizer.observe(decisions(raw)[0][raw.version[raw.mask] == step])
        if isinstance(raw, Groups) and self.kind == "episodes":
            costs = raw.extra["episode_cost"].tolist() if "episode_cost" in raw.extra else [None] * len(raw)
            ended = [Played(*each) for each in zip(raw.reward.tolist(), raw.mask.sum(1).tolist(), costs, strict=True)]
        else:
            ended = self.envs.take_finished() if self.acts else []
        if not ended:
            return {}
        self.method.ended(self.models, [p.total for p in ended])
        return {"reward": sum(p.total for p in ended) / len(ended),
                "length": sum(p.length for p in ended) / len(ended), **mean_cost(ended)}

    def sample(self, material: Experience, batch: Batch) -> Sample | None:
        return None

    def save(self, final: Path) -> None:
        scale = {SCALE: self.scale.seen} if self.scale else {}
        keep(self.nets.built | scale, self.shapes).write(final.parent / "networks")
        self.policy.save(final)

    def state(self) -> dict[str, Any]:
        return {"envs": self.envs.state() if self.acts else {},
                "scale": self.scale.state() if self.scale else {}}

    def tensors(self) -> dict[str, Tensor]:
        parts = {"normalizer": self.normalizer.state_dict() if self.normalizer else {},
                 "replay": self.replay.tensors() if self._replays else {},
                 "dynamics": self.nets.dynamics.state_dict() if self.modelled else {},
                 "stretches": self.nets.stretches.state_dict() if self.config.synthetic else {},
                 "synthetic": self.synthetic.tensors() if self.config.synthetic else {},
                 "memory": self.source.memories.states if self.config.memory and self.kind == "segments" else {},
                 "history": self.source.tensors() if self.config.history else {},
                 "drift": {"noise": self.drift.noise} if self.drift.keep else {}}
        return {f"{part}/{name}": x for part, kept in parts.items() for name, x in kept.items()}

    def load(self, state: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
        def part(name: str) -> dict[str, Tensor]:
            return {key.partition("/")[2]: x for key, x in tensors.items() if key.startswith(f"{name}/")}

        if self.modelled:
            self.nets.dynamics.load_state_dict(part("dynamics"))
        if self.config.synthetic:
            self.nets.stretches.load_state_dict(part("stretches"))
            self.synthetic.load(part("synthetic"))
        if self.acts:
            self.envs.restore(state["envs"])
        if self.normalizer:
            self.normalizer.load_state_dict(part("normalizer"))
        if self.scale:
            self.scale.load(state["scale"])
        if self._replays:
            self.replay.load(part("replay"))
        for role, x in part("memory").items():
            self.source.memories.states[role].copy_(x)
        if self.config.history:
            self.source.load(part("history"))
        if self.drift.keep:
            self.drift.noise = part("drift")["noise"]

    # ------------------------------------------------------------------ how good it is

    def evaluate(self, when: str) -> dict[str, Any]:
        """Returns of whole episodes from fixed starts, each action the likeliest."""
        config = self.config
        played = returns(self.policy, config.task, config.eval_episodes, config.seed)
        scores = [p.total for p in played]
        mean = sum(scores) / len(scores)
        found = {"return": mean, "interval": mean_interval(scores), "scores": scores,
                 "length": sum(p.length for p in played) / len(played), **mean_cost(played)}
        if self.logged and self.logged.references:
            low, high = self.logged.references
            found["normalized"] = 100 * (mean - low) / (high - low)  # 0: the dataset's reference of chance; 100: expert
        return found

    # ------------------------------------------------------------------ what will be done, in words

    def describe(self, method: Method[Any]) -> list[tuple[str, str]]:
        config = self.config
        acted = counted(config.envs, "action") + " in a model" * bool(config.imagined)
        what = {
            "segments": f"{counted(config.envs, 'environment')} × {counted(config.segment, 'step')} = "
                        f"{counted(config.envs * config.segment, 'action')}"
                        + f", beside those of the {config.history} batches before" * (config.history > 0)
                        + f", beside {self.from_log} of {len(self.logged or ())} logged ones" * (self.from_log > 0),
            "episodes": f"{counted(config.starts, 'start')} × {config.samples} = "
                        f"{counted(config.starts * config.samples, 'episode')}",
            "replay": f"{acted}, then {counted(config.batch_size, 'transition')} of the last {config.capacity}",
            "dataset": f"{self.from_log} of {len(self.logged or ())} logged transitions"
                       + f", whose episodes {config.curriculum} chooses" * bool(config.curriculum)
                       + f", {acted}, then {config.batch_size - self.from_log} of the last "
                         f"{config.capacity}" * self.acts
                       + f", beside {config.batch_size - self.from_log} made up" * bool(config.synthetic),
        }[self.kind]
        trained = sum(p.numel() for p in self.policy.parameters())
        return [
            ("batch", f"{what}; {updates(method)}, {counted(config.rounds, 'batch', 'batches')} a step"),
            *([("model", dynamics.told_of(self.nets.dynamics, config))] if self.modelled else []),
            *([("model", stretches.told_of(self.nets.stretches, config))] if config.synthetic else []),
            ("clip unit", f"one {self.policy.decision}"),
            ("policy", f"{self.facts['kind']} of {self.spaces.action} {'numbered actions' * self.spaces.numbered}"
                       f"{'numbers in [−1, 1]' * (not self.spaces.numbered)} on {config.task}: {trained} weights"),
        ]
