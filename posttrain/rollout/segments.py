"""What on-policy methods learn from in control: stretches of experience, cut where episodes end; whole episodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from posttrain.core import Groups
from posttrain.core.seeds import derive
from posttrain.data.steps import Steps
from posttrain.policies.acting import ControlPolicy, Observer
from posttrain.rollout.environments import (
    Environments,
    Native,
    Played,
    added,
    between,
    cost_of,
    make,
    reset,
    reset_seed,
)
from posttrain.rollout.goals import flat

MEMORY = "memory/"  # before the role, in the names of a tape's columns
EVERY = slice(None)


@dataclass
class Row:
    """A stretch of one episode: an environment's decisions from `start` to before `stop` on a tape."""

    unit: int
    environment: int
    start: int
    begun: bool  # the row begins its episode
    stop: int = 0
    last: Tensor | None = None
    terminated: bool = False
    played: Played | None = None  # the episode that ended with this row

    def close(self, stop: int, last: Tensor, terminated: bool, played: Played | None) -> None:
        """What was seen after the last step, whether the episode ended there by itself, and all of it if it is over."""
        self.stop, self.last, self.terminated, self.played = stop, last, terminated, played


class Tape:
    """Columns of what N environments went through side by side, one entry [N, …] for each step."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Tensor]] = {}

    def add(self, **found: Tensor | None) -> None:
        """One more step, [N, …] of each column; those without are left out."""
        for name, x in found.items():
            if x is not None:
                self.columns.setdefault(name, []).append(x)

    def padded(self, rows: list[Row]) -> dict[str, Tensor]:
        """Every column of these rows, [B, T, …]."""
        whole = {name: torch.stack(column) for name, column in self.columns.items()}
        return {name: pad_sequence([x[row.start:row.stop, row.environment] for row in rows], batch_first=True)
                for name, x in whole.items()}


class Memories:
    """What each network that remembers keeps of the episodes under way, a state for each."""

    def __init__(self, observers: Mapping[str, Observer], count: int) -> None:
        """observers: the networks, by their roles; those without a memory count for nothing."""
        self.memories = {role: (network, network.memory) for role, network in observers.items() if network.memory}
        self.states = {role: memory.blank(count) for role, (_, memory) in self.memories.items()}

    def see(self, obs: Tensor, alive: Tensor | slice = EVERY) -> tuple[Tensor, dict[str, Tensor]]:
        """What the policy sees of observations [n, obs] in these n episodes, and all the states before, by columns."""
        before = {f"{MEMORY}{role}": state.clone() for role, state in self.states.items()}
        seen = obs
        for role, (network, _) in self.memories.items():
            both, self.states[role][alive] = network.see(obs, self.states[role][alive])
            seen = both if role == ControlPolicy.role else seen
        return seen, before

    def forget(self, i: int) -> None:
        """Episode i begins anew."""
        for state in self.states.values():
            state[i] = 0


class SegmentSource:
    """`segment` steps of every environment.  A row is a stretch of one episode; the next step goes on from there."""

    def __init__(self, envs: Environments, policy: ControlPolicy, segment: int, seed: int,
                 critic: Observer | None = None, piece: int = 1) -> None:
        """critic: where there is one, so that it remembers too.  piece: of `Steps`, where something is remembered."""
        self.envs, self.policy, self.segment, self.seed, self.piece = envs, policy, segment, seed, piece
        self.memories = Memories({x.role: x for x in (policy, critic) if x is not None}, len(envs.envs))

    @torch.no_grad()
    def next(self, step: int) -> Groups:
        generator = torch.Generator().manual_seed(derive(self.seed, "rollout", step))
        count, hold = len(self.envs.envs), self.policy.hold
        draws = self.policy.noise((-(-self.segment // hold), count), generator).unbind()
        tape, done = Tape(), list[Row]()
        current = [Row(i, i, 0, self.envs.begun(i)) for i in range(count)]
        for t in range(self.segment):
            obs = self.envs.obs
            seen, before = self.memories.see(obs)
            action, logp = self.policy.sample(seen, draws[t // hold])
            found = self.envs.step(self.policy.enacted(seen, action))
            tape.add(obs=obs, action=action, logp=logp, reward=found.reward, cost=found.cost, post=found.post, **before)
            for i, (row, ended) in enumerate(zip(current, found.over, strict=True)):
                if ended:
                    self.memories.forget(i)
                if ended or t == self.segment - 1:
                    row.close(t + 1, found.next_obs[i], bool(found.terminated[i]), found.played[i])
                    done.append(row)
                    current[i] = Row(len(done) + count, i, t + 1, ended)
        return as_groups(tape, done, step, self.segment, torch.arange(len(done)), self.piece)


class EpisodeSource:
    """Whole episodes: `samples` from each of `starts` initial states, which are the groups."""

    def __init__(self, task: str, policy: ControlPolicy, starts: int, samples: int, seed: int,
                 critic: Observer | None = None, piece: int = 1) -> None:
        """critic, piece: as in `SegmentSource`."""
        self.policy, self.starts, self.samples, self.seed, self.piece = policy, starts, samples, seed, piece
        self.observers = {x.role: x for x in (policy, critic) if x is not None}
        self.envs = [make(task) for _ in range(starts * samples)]
        self.native = Native(self.envs[0].action_space)

    @torch.no_grad()
    def next(self, step: int) -> Groups:
        generator = torch.Generator().manual_seed(derive(self.seed, "rollout", step))
        rows = [Row(i // self.samples, i, 0, True) for i in range(len(self.envs))]
        seeds = [reset_seed(self.seed, "start", step, row.unit) for row in rows]
        obs = torch.stack([reset(env, s) for env, s in zip(self.envs, seeds, strict=True)])
        alive, t, draw = torch.arange(len(rows)), 0, torch.empty(0)
        tape, memories = Tape(), Memories(self.observers, len(rows))
        paid = [Played(0.0, 0, None)] * len(rows)
        while len(alive):
            if t % self.policy.hold == 0:
                draw = self.policy.noise((len(rows),), generator)
            t += 1
            seen, before = memories.see(obs[alive], alive)
            action, logp = self.policy.sample(seen, draw[alive])
            acted, going = obs.clone(), []
            reward, cost, post = torch.zeros(len(rows)), torch.zeros(len(rows)), None
            for i, taken in zip(alive.tolist(), self.native(self.policy.enacted(seen, action)), strict=True):
                following, earned, terminated, truncated, info = self.envs[i].step(taken)
                obs[i], reward[i], price = flat(following), float(earned), cost_of(info)
                cost[i] = math.nan if price is None else price
                if (state := between(info)) is not None:
                    post = acted.new_zeros(len(rows), len(state)) if post is None else post
                    post[i] = state
                paid[i] = Played(paid[i].total + float(earned), t, added(paid[i].cost, price))
                if terminated or truncated:
                    rows[i].close(t, obs[i].clone(), bool(terminated), paid[i])
                else:
                    going.append(i)
            tape.add(obs=acted, action=spread(action, alive, len(rows)), logp=spread(logp, alive, len(rows)),
                     reward=reward, cost=cost, post=post, **before)
            alive = torch.tensor(going, dtype=torch.long)
        return as_groups(tape, rows, step, t, torch.tensor([row.unit for row in rows]), self.piece)


def spread(x: Tensor, rows: Tensor, count: int) -> Tensor:
    """x [n, …] at these n of `count` rows, 0 elsewhere."""
    return x if len(x) == count else x.new_zeros(count, *x.shape[1:]).index_copy_(0, rows, x)


def as_groups(tape: Tape, rows: list[Row], step: int, limit: int, unit: Tensor, piece: int) -> Groups:
    """Rows padded to the longest."""
    found = tape.padded(rows)
    lengths = torch.tensor([row.stop - row.start for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    memory = {name.removeprefix(MEMORY): x for name, x in found.items() if name.startswith(MEMORY)}
    last: list[Any] = [row.last for row in rows]
    payload = Steps(found["obs"], found["action"], torch.stack(last), memory, piece if memory else 1, found.get("post"))
    return Groups(payload=payload, mask=mask, unit=unit, version=torch.full(mask.shape, step),
                  logp_behaviour=found["logp"], reward=found["reward"].sum(1), rewards=found["reward"],
                  finished=torch.tensor([row.terminated for row in rows]), limit=limit,
                  extra={"environment": torch.tensor([row.environment for row in rows]),
                         "begun": torch.tensor([row.begun for row in rows]), **costs_of(found["cost"], rows)})


def costs_of(cost: Tensor, rows: list[Row]) -> dict[str, Tensor]:
    """The columns of costs [B, T], where the environment reports them."""
    if cost.isnan().any():
        return {}
    ended = [(math.nan, math.nan) if p is None else (p.cost or 0.0, p.length) for p in (row.played for row in rows)]
    whole = torch.tensor(ended).to(cost)
    return {"cost": cost, "episode_cost": whole[:, 0], "episode_length": whole[:, 1]}
