"""Tiny real parts of control: random transitions and networks in float64, and updates through the real loop."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar

import torch
from toy import Recording

from posttrain.core import Batch, Groups, Method, Transitions, catalog
from posttrain.core.seeds import derive
from posttrain.data.nearest import Logged
from posttrain.data.replay.uniform import Replay
from posttrain.data.steps import Spaces, Steps
from posttrain.policies.control import NUMBERED, Gaussian
from posttrain.policies.dynamics import Dynamics
from posttrain.train import learner as train
from posttrain.train.config import ControlConfig
from posttrain.train.control import ControlSetting
from posttrain.train.datasets import make_dataset
from posttrain.train.loop import Pace
from posttrain.train.ranks import ALONE, Ranks

B = TypeVar("B", bound=Batch)
TASKS = {False: "Pendulum-v1", True: "CartPole-v1"}  # by whether actions are numbered
ROWS = 12
TERMINATED = (2, 5, 9)


@cache
def teacher_folder() -> str:
    """A random policy of Pendulum's, as a run leaves one."""
    made = Gaussian(Spaces(3, 1, False), 8, 2, "tanh", None, torch.Generator().manual_seed(9))
    return str(made.save(Path(mkdtemp()) / "final"))


@cache
def logged_folder(task: str) -> str:
    """A dataset of random actions on that task."""
    folder = Path(mkdtemp()) / "logged"
    make_dataset(task, folder, kind="random", policy="", steps=40, seed=8, expert="", reference_episodes=1)
    return str(folder)


def setting(method: Method[Any], seed: int = 0, **options: Any) -> ControlSetting:
    """The real setting of a method, with networks of 8 units in float64."""
    given = {**method.defaults.get("control", {}), "width": 8, "seed": seed, **options}
    fields = ControlConfig.__dataclass_fields__
    given.setdefault("task", "PendulumSpeed-v0" if "cost_critic" in method.needs else
                     TASKS[given.get("policy") in NUMBERED])
    given.pop("source", None)  # what batches hold is the test's own
    if method.learns_from == "both" and given.get("dataset_share"):
        given["dataset"] = (logged_folder(given["task"]),)
    elif method.learns_from != "both":
        given.pop("dataset_share", None)
    for name in ("imagined", "synthetic"):
        given.pop(name, None)
    if "teacher" in method.needs:
        given["teacher"] = teacher_folder()
    made = ControlSetting(method, ControlConfig(**{k: v for k, v in given.items() if k in fields}), None)
    made.policy.double()
    return made


def toy_transitions(spaces: Spaces, seed: int = 0, noises: int = 2, rows: int = ROWS,
                    dtype: torch.dtype = torch.float64, ahead: int = 0) -> Transitions:
    """Random ones; rows 2, 5 and 9 terminated, and with `ahead` the rows between go on in order."""
    generator = torch.Generator().manual_seed(derive(seed, "transitions"))
    replay = Replay(spaces, rows, ahead=ahead)
    replay.columns = {name: x.to(dtype) if x.dtype == torch.float32 else x for name, x in replay.columns.items()}
    action = (torch.randint(spaces.action, (rows,), generator=generator) if spaces.numbered
              else 1.8 * torch.rand(rows, spaces.action, generator=generator) - 0.9)
    terminated = torch.isin(torch.arange(rows), torch.tensor(TERMINATED))
    replay.add(obs=torch.randn(rows, spaces.obs, generator=generator), action=action, ended=terminated,
               reward=torch.randn(rows, generator=generator),
               next_obs=torch.randn(rows, spaces.obs, generator=generator),
               terminated=terminated)
    batch = replay.rows(torch.arange(rows), noises, generator)
    batch = batch.with_extra(to_go=torch.randn(rows, generator=generator).to(dtype),
                             next_action=batch.action.roll(-1, 0).to(dtype),
                             logged=(torch.arange(rows) % 3 > 0).to(dtype))
    return batch.replace(noise=batch.noise.to(dtype), logp_behaviour=batch.logp_behaviour.to(dtype))


def toy_segments(method: Method[Any], seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> Groups:
    """What a run's first batch is: 24 steps of two environments, acted in fp32."""
    made = setting(method, **{"envs": 2, "segment": 24, **options}, seed=seed)
    made.policy.float()
    batch = made.next(0).batch
    steps = batch.payload
    assert isinstance(batch, Groups) and isinstance(steps, Steps)

    def cast(record: Any) -> dict[str, torch.Tensor]:
        columns = vars(record) if not isinstance(record, dict) else record
        return {name: x.to(dtype) for name, x in columns.items()
                if isinstance(x, torch.Tensor) and x.is_floating_point()}

    steps = replace(steps, **cast(steps), memory=cast(steps.memory))
    if "episode_cost" in batch.extra:  # the first row ends an episode that began long before
        first = torch.arange(len(batch)) == 0
        batch = batch.with_extra(episode_cost=torch.where(first, 30.0, torch.nan),
                                 episode_length=torch.where(first, 200.0, torch.nan))
    return batch.replace(**cast(batch), payload=steps, extra={**batch.extra, **cast(batch.extra)})


def acted(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> Groups:
    """What a method's policy of 3 denoising steps did in two environments, 5 steps in one and 3 in the other."""
    batch = toy_segments(catalog.make(name), seed, dtype, segment=5, denoising_steps=3)
    batch.mask[1, 3:] = False
    return batch


class ControlLearner:
    """A method on tiny networks; every gradient is kept."""

    def __init__(self, method: Method[Any], seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> None:
        self.setting = setting(method, seed, **options)
        logged = toy_transitions(self.setting.spaces, 99)
        built = {"policy": lambda: self.setting.policy, **self.setting.networks(),
                 "dynamics": lambda: Dynamics(self.setting.spaces, 3, 8, torch.Generator().manual_seed(7)),
                 "logged": lambda: Logged(logged.obs, logged.action, self.setting.normalizer)}
        networks = {name: built[name]() for name in method.needs}
        for network in networks.values():
            network.module.to(dtype)
        self.run = train.Learner(method, networks, Recording)
        self.models, self.optimizers = self.run.models, self.run.optimizers
        self.metrics: dict[str, float] = {}

    def update(self, batch: B, step: int = 0, lr: float = 1e-2, ranks: Ranks = ALONE) -> B:
        generator = torch.Generator().manual_seed(derive(step, "minibatches"))
        prepared, self.metrics, _ = self.run.update(batch, Pace(lr, 1e30), generator, ranks)
        return prepared

    def gradient(self, network: str, step: int = 0) -> torch.Tensor:
        """Of that network's optimizer at one of its steps, flat."""
        optimizer = self.optimizers[network]
        assert isinstance(optimizer, Recording)
        return optimizer.gradients[step]

    @property
    def weights(self) -> torch.Tensor:
        return torch.cat([optimizer.master for optimizer in self.optimizers.values()])
