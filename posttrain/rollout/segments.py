"""What on-policy methods learn from in control: stretches of experience, cut where episodes end; whole episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from posttrain.core import Groups
from posttrain.core.seeds import derive
from posttrain.data.steps import Steps
from posttrain.policies.control import ControlPolicy
from posttrain.rollout.environments import Environments, Stepped


@dataclass
class Row:
    """Steps of one episode, as they come."""

    unit: int
    obs: list[Tensor]
    action: list[Tensor]
    logp: list[Tensor]
    reward: list[Tensor]
    last: Tensor | None = None
    terminated: bool = False


def noise(policy: ControlPolicy, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """What `sample` takes: [*shape, A] normal, or [*shape, 1] uniform where actions are numbered."""
    if policy.spaces.numbered:
        return torch.rand(*shape, 1, generator=generator)
    return torch.randn(*shape, policy.spaces.action, generator=generator)


class SegmentSource:
    """`segment` steps of every environment.  A row is a stretch of one episode; the next step goes on from there."""

    def __init__(self, envs: Environments, policy: ControlPolicy, segment: int, seed: int) -> None:
        self.envs, self.policy, self.segment, self.seed = envs, policy, segment, seed

    def next(self, step: int) -> Groups:
        generator = torch.Generator().manual_seed(derive(self.seed, "rollout", step))
        count = len(self.envs.envs)
        draws = noise(self.policy, (self.segment, count), generator)
        current = [Row(i, [], [], [], []) for i in range(count)]
        done: list[Row] = []
        for t in range(self.segment):
            obs = self.envs.obs
            with torch.no_grad():
                action, logp = self.policy.sample(obs, draws[t])
            found = self.envs.step(action)
            for i, row in enumerate(current):
                extend(row, i, obs, action, logp, found)
                if found.terminated[i] or found.truncated[i] or t == self.segment - 1:
                    close(row, i, found)
                    done.append(row)
                    current[i] = Row(len(done) + count, [], [], [], [])
        return as_groups(done, step, self.segment, torch.arange(len(done)))


class EpisodeSource:
    """Whole episodes: `samples` from each of `starts` initial states, which are the groups."""

    def __init__(self, task: str, policy: ControlPolicy, starts: int, samples: int, seed: int) -> None:
        self.policy, self.starts, self.samples, self.seed = policy, starts, samples, seed
        self.envs = [Environments(task, 1, 0).envs[0] for _ in range(starts * samples)]

    def next(self, step: int) -> Groups:
        from posttrain.rollout.environments import flat, native

        generator = torch.Generator().manual_seed(derive(self.seed, "rollout", step))
        rows = [Row(i // self.samples, [], [], [], []) for i in range(len(self.envs))]
        seeds = [derive(self.seed, "start", step, row.unit) % 2**31 for row in rows]
        obs = torch.stack([flat(env.reset(seed=s)[0]) for env, s in zip(self.envs, seeds, strict=True)])
        alive, t = torch.arange(len(rows)), 0
        while len(alive):
            t += 1
            draw = noise(self.policy, (len(rows),), generator)[alive]
            seen = obs[alive]
            with torch.no_grad():
                action, logp = self.policy.sample(seen, draw)
            going = []
            for k, i in enumerate(alive.tolist()):
                following, reward, terminated, truncated, _ = self.envs[i].step(native(self.envs[i], action[k]))
                obs[i] = flat(following)
                row = rows[i]
                for kept, x in ((row.obs, seen[k]), (row.action, action[k]), (row.logp, logp[k]),
                                (row.reward, torch.tensor(float(reward)))):
                    kept.append(x)
                if terminated or truncated:
                    row.last, row.terminated = obs[i].clone(), bool(terminated)
                else:
                    going.append(i)
            alive = torch.tensor(going, dtype=torch.long)
        return as_groups(rows, step, t, torch.tensor([row.unit for row in rows]))


def extend(row: Row, i: int, obs: Tensor, action: Tensor, logp: Tensor, found: Stepped) -> None:
    for kept, x in ((row.obs, obs), (row.action, action), (row.logp, logp), (row.reward, found.reward)):
        kept.append(x[i])


def close(row: Row, i: int, found: Stepped) -> None:
    row.last, row.terminated = found.next_obs[i], bool(found.terminated[i])


def as_groups(rows: list[Row], step: int, limit: int, unit: Tensor) -> Groups:
    """Rows padded to the longest."""
    def padded(columns: list[list[Tensor]]) -> Tensor:
        return pad_sequence([torch.stack(column) for column in columns], batch_first=True)

    lengths = torch.tensor([len(row.reward) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    rewards = padded([row.reward for row in rows])
    last: list[Any] = [row.last for row in rows]
    payload = Steps(padded([row.obs for row in rows]), padded([row.action for row in rows]), torch.stack(last))
    return Groups(payload=payload, mask=mask, unit=unit, version=torch.full(mask.shape, step),
                  logp_behaviour=padded([row.logp for row in rows]), reward=rewards.sum(1), rewards=rewards,
                  finished=torch.tensor([row.terminated for row in rows]), limit=limit)
