"""A peer's run, start to end: trains as it is told and prints the returns of its final policy as one line of JSON.

    python -m versus.peer_returns WORK          # WORK: JSON of `Work`

The same initial states and the same player measure both sides: `posttrain.rollout.environments.play`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from posttrain.evaluate.control import starts
from posttrain.rollout.environments import play
from versus.channel import Channel


@dataclass(frozen=True)
class Work:
    """What the peer is to do, at its own defaults beside this."""

    method: str
    task: str
    length: int  # actions taken, or updates made on a dataset
    seed: int
    dataset: str = ""
    episodes: int = 50
    options: Mapping[str, Any] = field(default_factory=dict)  # of a peer that acts

    def dump(self) -> str:
        return json.dumps(asdict(self))


def acted(work: Work) -> Any:
    """Stable-Baselines3, learning as it acts.  Its policy's actions are those of the environment."""
    import gymnasium as gym
    import stable_baselines3

    made = getattr(stable_baselines3, work.method.upper())
    options = {"learning_starts": 1000, **work.options}  # as posttrain's random_steps
    model = made("MlpPolicy", gym.make(work.task), device="cpu", seed=work.seed, **options).learn(work.length)
    space = model.action_space

    def act(obs: torch.Tensor) -> torch.Tensor:
        action = torch.from_numpy(model.predict(obs.numpy(), deterministic=True)[0])
        if not space.shape:
            return action - int(space.start)
        return 2 * (action - space.low) / (space.high - space.low) - 1

    return act


def logged(work: Work) -> Any:
    """d3rlpy, learning from logged transitions, actions in [−1, 1] as posttrain reads them."""
    import d3rlpy

    from posttrain.data.dataset import read_dataset

    d3rlpy.seed(work.seed)
    data = read_dataset(work.dataset)
    cut = np.asarray(~data.follows & ~data.terminated)
    found = d3rlpy.dataset.MDPDataset(
        data.obs.numpy(), data.action.numpy(), data.reward.numpy(), data.terminated.numpy().astype(np.float32),
        timeouts=cut.astype(np.float32))
    algos = d3rlpy.algos
    made = {"td3-bc": algos.TD3PlusBCConfig(observation_scaler=d3rlpy.preprocessing.StandardObservationScaler()),
            "iql": algos.IQLConfig(), "cql": algos.CQLConfig()}[work.method].create(device="cpu:0")
    made.fit(found, n_steps=work.length, n_steps_per_epoch=work.length, show_progress=False,
             logger_adapter=d3rlpy.logging.NoopAdapterFactory())
    return lambda obs: torch.from_numpy(made.predict(obs.numpy())).clamp(-1, 1)


def main(work: Work) -> None:
    channel = Channel()
    torch.set_num_threads(1)
    began = time.perf_counter()
    act = logged(work) if work.dataset else acted(work)
    seconds = time.perf_counter() - began
    seeds = starts(work.seed, work.episodes)
    scores = [played.total for i in range(0, len(seeds), 32) for played in play(work.task, act, seeds[i:i + 32])]
    channel.send(scores=scores, seconds=seconds)


if __name__ == "__main__":
    main(Work(**json.loads(sys.argv[1])))
