"""The one loop: prepare, score, loss, step.  It knows no method's name and no kind of policy."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posttrain.core import Batch, Method, Models, Policy, Score
from posttrain.core.method import B
from posttrain.train.optim import FlatAdamW


@dataclass(frozen=True)
class Pace:
    """How far an optimizer step goes."""

    lr: float
    max_grad_norm: float


class Measured:
    """A policy that also notes how far its scores lie from what the sampler recorded."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.decision, self.module, self.split = policy, policy.decision, policy.module, policy.split
        self.gap_sum, self.gap_max, self.decisions = 0.0, 0.0, 0

    def log_prob(self, batch: Batch) -> Tensor:
        return self.score(batch).log_prob

    def score(self, batch: Batch, entropy: bool = False) -> Score:
        score = self.policy.score(batch, entropy)
        gap = (score.log_prob.detach() - batch.logp_behaviour).abs()[batch.mask]
        if len(gap):
            self.gap_sum += float(gap.sum())
            self.gap_max = max(self.gap_max, float(gap.max()))
            self.decisions += len(gap)
        return score

    def reset(self) -> None:
        self.gap_sum, self.gap_max, self.decisions = 0.0, 0.0, 0


class Meter:
    """Means over micro-batches: sums and counts are added, then divided once."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def add(self, name: str, total: float, count: float) -> None:
        self.sums[name] += total
        self.counts[name] += count

    def means(self) -> dict[str, float]:
        return {name: self.sums[name] / count for name, count in self.counts.items() if count > 0}


def update(method: Method[B], models: Models, optimizer: FlatAdamW, batch: B, pace: Pace,
           generator: torch.Generator) -> tuple[B, dict[str, float], dict[str, float]]:
    """All that one source batch teaches: the prepared batch, metrics, and seconds by stage."""
    started = time.perf_counter()
    measured = models.policy
    measured.reset()
    meter = Meter()
    with torch.no_grad():
        reused = method.epochs * method.minibatches > 1
        if reused:  # the policy moves while the batch is in use: remember where it was
            batch = batch.replace(logp_old=measured.log_prob(batch))
        batch = method.prepare(models, batch)
    prepared = time.perf_counter()
    for first, rows in _minibatches(batch, method, generator):
        part = batch.take(rows).counted()
        if first and reused:  # packed otherwise than when it was scored, rounding would keep the ratio from being 1
            part = part.replace(logp_old=None)
        _accumulate(method, models, part, meter)
        if first:
            meter.add("logp_gap", measured.gap_sum, measured.decisions)
            gap_max = measured.gap_max
        norm = optimizer.step(pace.lr, pace.max_grad_norm)
        meter.add("grad_norm", norm, 1)
        method.after_step(models)
    metrics = meter.means() | {"logp_gap_max": gap_max}
    return batch, metrics, {"prepare": prepared - started, "learn": time.perf_counter() - prepared}


def _minibatches(batch: Batch, method: Method[Any], generator: torch.Generator) -> Iterator[tuple[bool, Tensor]]:
    """(is it the first, row indices): units shuffled whole, every unit once per epoch."""
    units = batch.unit.unique()
    for epoch in range(method.epochs):
        order = units if method.minibatches == 1 else units[torch.randperm(len(units), generator=generator)]
        for part, chosen in enumerate(order.tensor_split(method.minibatches)):
            yield epoch == part == 0, torch.isin(batch.unit, chosen).nonzero()[:, 0]


def _accumulate(method: Method[Any], models: Models, batch: Batch, meter: Meter) -> None:
    """Add the gradient of this batch's loss, micro-batch by micro-batch."""
    active = (~method.silent(batch)).nonzero()[:, 0]
    meter.add("silent", len(batch) - len(active), len(batch))
    batch, losses = batch.take(active), defaultdict[str, float](float)
    for rows in models.policy.split(batch, method.couples_rows):
        loss = method.loss(models, batch.take(rows))
        loss.value.backward()
        for name, term in loss.terms.items():
            losses[f"loss/{name}"] += float(term.value.detach())
        for name, term in loss.metrics.items():
            meter.add(name, float(term.sum), term.here)
    for name, value in losses.items():
        meter.add(name, value, 1)
