"""The one loop: prepare, score, loss, step.  It knows no method's name and no kind of policy."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posttrain.core import Batch, Method, Models, Policy, Score, every
from posttrain.core.method import B
from posttrain.train.optim import FlatAdamW
from posttrain.train.own_step import Again, losses
from posttrain.train.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Pace:
    """How far an optimizer step goes."""

    lr: float
    max_grad_norm: float


class Measured:
    """A policy that also notes how far its scores lie from what the sampler recorded; all else is its own."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.watching = policy, False
        self.gap_sum, self.gap_max, self.decisions = 0.0, 0.0, 0

    def log_prob(self, batch: Batch) -> Tensor:
        return self.score(batch).log_prob

    def score(self, batch: Batch, entropy: bool = False) -> Score:
        score = self.policy.score(batch, entropy)
        if not self.watching:
            return score
        sampled = batch.mask & ~batch.logp_behaviour.isnan()
        gap = (score.log_prob.detach() - batch.logp_behaviour).abs()[sampled]
        if len(gap):
            self.gap_sum += float(gap.sum())
            self.gap_max = max(self.gap_max, float(gap.max()))
            self.decisions += len(gap)
        return score

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["policy"], name)

    def watch(self, on: bool) -> None:
        """From here on or no more; what was noted is forgotten when it begins."""
        self.watching = on
        if on:
            self.gap_sum, self.gap_max, self.decisions = 0.0, 0.0, 0


class Meter:
    """Means over micro-batches, ranks and steps: sums and counts are added, then divided once; and what is largest."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)
        self.peaks: dict[str, float] = {}

    def add(self, name: str, total: float, count: float) -> None:
        self.sums[name] += total
        self.counts[name] += count

    def peak(self, name: str, value: float) -> None:
        self.peaks[name] = max(value, self.peaks.get(name, value))

    def merge(self, *others: Meter) -> None:
        for other in others:
            for name, count in other.counts.items():
                self.add(name, other.sums[name], count)
            for name, value in other.peaks.items():
                self.peak(name, value)

    def means(self) -> dict[str, float]:
        return {name: self.sums[name] / count for name, count in self.counts.items() if count > 0} | self.peaks


def update(method: Method[B], models: Models, optimizers: Mapping[str, FlatAdamW], batch: B, pace: Pace,
           generator: torch.Generator, ranks: Ranks = ALONE) -> tuple[B, dict[str, float], dict[str, float]]:
    """All that one source batch teaches: the prepared batch, metrics, and seconds by stage.

    optimizers: of each network in the method's `lr_scale`.
    ranks: the processes that share the work; each is given the whole batch and learns from its own units.
    """
    started = time.perf_counter()
    measured = models.policy
    measured.watch(False)
    meter = Meter()
    with torch.no_grad():
        reused = batch.keeps_old and method.epochs * method.minibatches > 1
        passes = batch.redrawn(method.epochs) if method.redraws else [batch]
        if reused:  # the policy moves while the batch is in use: remember where it was
            passes = [each.replace(logp_old=measured.log_prob(each)) for each in passes]
        passes = [method.prepare(models, each) for each in passes]
        batch = passes[0]
        if not method.couples_decisions:
            passes = [each.apart() for each in passes]
    prepared = time.perf_counter()
    gap_max = 0.0
    for epoch, first, chosen in _minibatches(passes[0], method, models, generator):
        part = passes[epoch % len(passes)].take(chosen).counted()
        measured.watch(first)
        if first and reused:  # packed otherwise than when it was scored, rounding would keep the ratio from being 1
            part = part.replace(logp_old=None)
        mine = part.take(ranks.share(part.unit))
        step, terms = _accumulate(method, models, mine)
        if first:
            step.add("logp_gap", measured.gap_sum, measured.decisions)
            gap_max = ranks.largest(measured.gap_max)
        step, totals = ranks.gather(step, terms)
        for name, total in totals.items():
            step.add(f"loss/{name}", total, 1)
        moved, again = method.moves(models), Again(method, models, mine, ranks, step)
        for name, scale in method.lr_scale.items():
            if name not in moved:
                continue
            ranks.add(optimizers[name].gradient)
            norm = optimizers[name].step(pace.lr * scale, pace.max_grad_norm, again)
            step.add("grad_norm" if name == "policy" else f"grad_norm/{name}", norm, 1)
        method.after_step(models, step.means())
        meter.merge(step)
    metrics = meter.means()
    if "logp_gap" in metrics:  # something was sampled
        metrics["logp_gap_max"] = gap_max
    return batch, metrics, {"prepare": prepared - started, "learn": time.perf_counter() - prepared}


def _minibatches(batch: Batch, method: Method[Any], models: Models, generator: torch.Generator
                 ) -> Iterator[tuple[int, bool, Tensor]]:
    """(epoch, is it the first, row indices): units shuffled whole, every unit once per epoch."""
    epoch = 0
    while method.again(models, batch, epoch):
        for part, chosen in enumerate(_parts(batch.unit, method.minibatches, generator)):
            yield epoch, epoch == part == 0, chosen
        epoch += 1


def _parts(unit: Tensor, count: int, generator: torch.Generator) -> Sequence[Tensor]:
    """The rows of each part of an epoch, in their order; of one, all rows."""
    if count == 1:
        return [every(len(unit))]
    units, unit = unit.unique(return_inverse=True)
    place = torch.empty_like(units)  # in which part of the epoch each unit is
    for part, members in enumerate(torch.randperm(len(units), generator=generator).tensor_split(count)):
        place[members] = part
    mine = place[unit]
    rows: Sequence[Tensor] = mine.argsort(stable=True).split(mine.bincount(minlength=count).tolist())
    return rows


def _accumulate(method: Method[Any], models: Models, mine: Batch) -> tuple[Meter, dict[str, float]]:
    """Add the gradient of this rank's part of the batch's loss, micro-batch by micro-batch.

    Returns the metrics, and this rank's part of each loss term.
    """
    meter, terms = Meter(), defaultdict[str, float](float)
    silent = method.silent(mine)
    active = every(len(mine)) if silent is None else (~silent).nonzero()[:, 0]
    meter.add("silent", len(mine) - len(active), len(mine))
    for loss in losses(method, models, mine.take(active)):
        loss.value.backward()
        for name, term in loss.terms.items():
            terms[name] += term.value.item()
        for name, term in loss.metrics.items():
            meter.add(name, term.sum.item(), term.here)
        for name, value in loss.peaks.items():
            meter.peak(name, value)
    return meter, terms
