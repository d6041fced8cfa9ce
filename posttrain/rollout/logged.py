"""What offline methods learn from in control: a dataset that somebody logged, alone or beside a replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from posttrain.core import EpisodeCurriculum, Groups, Transitions
from posttrain.core.seeds import derive
from posttrain.data.dataset import Dataset
from posttrain.data.replay.uniform import Replay
from posttrain.data.steps import Steps, Stretches
from posttrain.rollout.replayed import ReplaySource
from posttrain.rollout.segments import SegmentSource
from posttrain.rollout.synthetic import SyntheticSource

UNKNOWN: Mapping[str, float] = {  # of rows that come from a replay
    "to_go": -torch.inf, "next_action": torch.nan, "logged": 0.0}


class DatasetSource:
    """A draw from a dataset, with replacement; beside it, where asked for, one of what was acted or made up.

    Every row is as likely as another, or each episode as a curriculum says.
    """

    def __init__(self, dataset: Dataset, batch: int, noises: int, discount: float, span: int, seed: int,
                 beside: ReplaySource | SyntheticSource | None = None, ahead: int = 0,
                 curriculum: EpisodeCurriculum | None = None) -> None:
        """batch: rows from the dataset; those of `beside` come after them."""
        self.replay = Replay(dataset.spaces, len(dataset), span=span, discount=discount, ahead=ahead)
        self.replay.add(obs=dataset.obs, action=dataset.action, reward=dataset.reward, next_obs=dataset.next_obs,
                        terminated=dataset.terminated, ended=~dataset.follows)
        self.more = {"to_go": dataset.to_go(discount), "next_action": dataset.next_action}
        self.batch, self.noises, self.seed, self.beside = batch, noises, seed, beside
        self.below = chances(dataset, curriculum).cumsum(0) if curriculum else None

    def next(self, step: int) -> Transitions:
        """The draw of round `step` (from 0)."""
        generator = torch.Generator().manual_seed(derive(self.seed, "dataset", step))
        chosen = choose(self.below, len(self.replay), self.batch, generator)
        logged = self.replay.rows(chosen, self.noises, generator)
        logged = logged.with_extra(logged=torch.ones(len(logged)),
                                   **{name: column[chosen] for name, column in self.more.items()})
        return logged if self.beside is None else joined(logged, self.beside.next(step))


class BesideSource:
    """What acting brings, and beside it as many logged actions, drawn with replacement, as are asked for.

    These fill rows of their own, which nobody sampled, as wide as the widest of the others.
    """

    def __init__(self, source: SegmentSource, dataset: Dataset | None, logged: int, noises: int, seed: int) -> None:
        """logged: of all of a batch's actions."""
        self.source, self.data, self.logged, self.noises, self.seed = source, dataset, logged, noises, seed

    def next(self, step: int) -> Groups:
        """The batch of round `step` (from 0)."""
        generator = torch.Generator().manual_seed(derive(self.seed, "beside", step))
        batch = told(self.source.next(step))
        if self.data and self.logged:
            chosen = torch.randint(len(self.data), (self.logged,), generator=generator)
            batch = stacked(batch, given_rows(self.data, chosen, batch))
        return batch.with_extra(noise=self.source.policy.noise((*batch.mask.shape, self.noises), generator))


def told(batch: Groups) -> Groups:
    """A segment with what `Transitions` says of each decision."""
    steps, last = batch.payload, batch.mask.sum(1) - 1
    assert isinstance(steps, Steps)
    next_obs = steps.obs.roll(-1, 1)
    next_obs[torch.arange(len(batch)), last] = steps.last
    ended = batch.finished[:, None] & (torch.arange(batch.mask.shape[1]) == last[:, None])
    return batch.with_extra(obs=steps.obs, action=steps.action, next_obs=next_obs, terminated=ended,
                            given=torch.zeros(len(batch), dtype=torch.bool))


def given_rows(data: Dataset, chosen: Tensor, like: Groups) -> Groups:
    """These rows of a dataset, as many in a row as a row of `like` is wide."""
    width = like.mask.shape[1]
    rows = -(-len(chosen) // width)
    mask = (torch.arange(rows * width) < len(chosen)).view(rows, width)

    def of(x: Tensor) -> Tensor:
        out = x.new_zeros(rows * width, *x.shape[1:])
        out[:len(chosen)] = x[chosen]
        return out.view(rows, width, *x.shape[1:])

    columns = {name: of(getattr(data, name)) for name in ("obs", "action", "next_obs", "terminated")}
    rewards, blank = of(data.reward), torch.zeros(rows, dtype=torch.bool)
    extra = {name: x.new_zeros(rows, *x.shape[1:]) for name, x in like.extra.items()}
    payload = Steps(columns["obs"], columns["action"], torch.zeros(rows, data.spaces.obs))
    return like.replace(payload=payload, mask=mask, unit=len(like) + torch.arange(rows),
                        version=torch.full(mask.shape, -1), logp_behaviour=torch.full(mask.shape, torch.nan),
                        reward=rewards.sum(1), rewards=rewards, finished=blank,
                        extra=extra | columns | {"given": ~blank})


def stacked(one: Groups, other: Groups) -> Groups:
    """The rows of both, which are equally wide."""
    a, b = one.payload, other.payload
    assert isinstance(a, Steps) and isinstance(b, Steps)
    payload = Steps(torch.cat([a.obs, b.obs]), torch.cat([a.action, b.action]), torch.cat([a.last, b.last]))
    changed: dict[str, Any] = {f.name: torch.cat([x, getattr(other, f.name)]) for f in fields(one)
                               if isinstance(x := getattr(one, f.name), Tensor)}
    extra = {name: torch.cat([x, other.extra[name]]) for name, x in one.extra.items()}
    return one.replace(**changed | {"payload": payload, "extra": extra})


class StretchSource:
    """Stretches of at most `length` steps, each from a row of a dataset on, as `Groups` of one row."""

    def __init__(self, dataset: Dataset, batch: int, length: int, seed: int,
                 curriculum: EpisodeCurriculum | None = None) -> None:
        """curriculum: of the episodes that they begin in."""
        self.data, self.batch, self.length, self.seed = dataset, batch, length, seed
        self.below = chances(dataset, curriculum).cumsum(0) if curriculum else None
        lengths = torch.bincount(dataset.episode)
        self.ends = lengths.cumsum(0)[dataset.episode]  # the row after each row's episode
        self.time = torch.arange(len(dataset)) - (self.ends - lengths[dataset.episode])
        self.to_go = dataset.to_go(1.0)

    def next(self, step: int) -> Groups:
        """The draw of round `step` (from 0)."""
        data, generator = self.data, torch.Generator().manual_seed(derive(self.seed, "dataset", step))
        first = choose(self.below, len(data), self.batch, generator)
        lengths = (self.ends[first] - first).clamp(max=self.length)
        columns = torch.arange(int(lengths.max()))
        mask = columns < lengths[:, None]
        rows = (first[:, None] + columns).clamp(max=len(data) - 1)
        payload = Stretches(data.obs[rows], data.action[rows], self.to_go[rows], self.time[rows])
        rewards = torch.where(mask, data.reward[rows], 0.0)
        return Groups(payload=payload, mask=mask, unit=torch.arange(self.batch), version=torch.full(mask.shape, -1),
                      logp_behaviour=torch.full(mask.shape, torch.nan), reward=rewards.sum(1), rewards=rewards,
                      finished=data.terminated[first + lengths - 1], limit=self.length)


def choose(below: Tensor | None, rows: int, count: int, generator: torch.Generator) -> Tensor:
    """Row numbers [count]; below: the sum of the chances of all up to each, where they are not alike."""
    if below is None:
        return torch.randint(rows, (count,), generator=generator)
    drawn = torch.rand(count, dtype=torch.float64, generator=generator) * below[-1]
    return torch.searchsorted(below, drawn, right=True).clamp(max=rows - 1)


def chances(dataset: Dataset, curriculum: EpisodeCurriculum) -> Tensor:
    """Of each row, [N]: its episode's, shared among its steps."""
    arms = dataset.episodes
    of = torch.tensor(curriculum.probabilities(curriculum.initial_state(arms), arms), dtype=torch.float64)
    return (of / torch.bincount(dataset.episode))[dataset.episode]


def joined(one: Transitions, other: Transitions) -> Transitions:
    """The rows of both; further columns that the other lacks are UNKNOWN there."""
    more = {name: torch.cat([x, other.extra[name] if name in other.extra
                             else x.new_full((len(other), *x.shape[1:]), UNKNOWN[name])])
            for name, x in one.extra.items()}
    a, b = one.payload, other.payload
    assert isinstance(a, Steps) and isinstance(b, Steps)
    payload = Steps(torch.cat([a.obs, b.obs]), torch.cat([a.action, b.action]), torch.cat([a.last, b.last]))
    changed: dict[str, Any] = {f.name: torch.cat([x, getattr(other, f.name)]) for f in fields(one)
                               if isinstance(x := getattr(one, f.name), Tensor)}
    return one.replace(**changed | {"payload": payload, "extra": more, "unit": torch.arange(len(one) + len(other))})
