"""What a method's own step is given: the loss of the step's rows, asked again at any weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from posttrain.core import Batch, Loss, Method, Models
from posttrain.nets.precision import length
from posttrain.train.ranks import Ranks

if TYPE_CHECKING:
    from posttrain.train.loop import Meter
    from posttrain.train.optim import FlatAdamW


def losses(method: Method[Any], models: Models, batch: Batch) -> Iterator[Loss]:
    """The loss of each micro-batch."""
    for rows in models.policy.split(batch, method.couples_rows):
        yield method.loss(models, batch.take(rows))


class Again:
    """The loss of one optimizer step, for whoever asks again.

    mine: the rows that this rank has learnt from.
    """

    def __init__(self, method: Method[Any], models: Models, mine: Batch, ranks: Ranks, meter: Meter) -> None:
        self.method, self.models, self.mine, self.ranks, self.meter = method, models, mine, ranks, meter

    def hold(self) -> None:
        """Before the policy moves: what it says now is what ratios are to, where the batch does not know better."""
        if self.mine.keeps_old and self.mine.logp_old is None:
            self.mine = self.mine.replace(logp_old=self.models.policy.log_prob(self.mine))

    def values(self) -> Mapping[str, float]:
        """Every term, added or aside."""
        found = defaultdict[str, float](float)
        for loss in losses(self.method, self.models, self.mine):
            for name, term in (loss.terms | loss.asides).items():
                found[name] += float(term.value)
        return self.ranks.gather(type(self.meter)(), found)[1]

    def differentiate(self, term: str) -> None:
        """Add this rank's part of the term's gradient to the networks that it reaches."""
        with torch.enable_grad():
            for loss in losses(self.method, self.models, self.mine):
                (loss.terms | loss.asides)[term].value.backward()


class OwnStep:
    """The `Step` of one network's optimizer, which has the whole gradient."""

    def __init__(self, optimizer: FlatAdamW, again: Again, lr: float, max_norm: float) -> None:
        self.optimizer, self.again, self.lr, self.max_norm = optimizer, again, lr, max_norm
        self.gradient, self.kept = optimizer.gradient.clone(), optimizer.kept

    @property
    def weights(self) -> Tensor:
        return self.optimizer.master.clone()

    def put(self, weights: Tensor) -> None:
        self.again.hold()
        self.optimizer.put(weights)

    def values(self) -> Mapping[str, float]:
        return self.again.values()

    def gradient_of(self, term: str) -> Tensor:
        self.optimizer.gradient.zero_()
        self.again.differentiate(term)
        self.again.ranks.add(self.optimizer.gradient)
        return self.optimizer.gradient.clone()

    def curvature(self, term: str, direction: Tensor) -> Tensor:
        """By a central difference of gradients, so that whatever has a gradient has this.

        The width, ∛ε (1 + ‖θ‖) along the direction, balances the rounding ε of the weights and the difference's own
        error (Nocedal & Wright, Numerical Optimization (2006), sec. 8.1).
        """
        size = length(direction)
        if size == 0:
            return torch.zeros_like(direction)
        here = self.weights
        width = self.optimizer.rounding ** (1 / 3) * (1 + length(here)) / size
        self.put(here + width * direction)
        ahead = self.gradient_of(term)
        self.put(here - width * direction)
        behind = self.gradient_of(term)
        self.put(here)
        bent: Tensor = (ahead - behind) / (2 * width)
        return bent

    def adamw(self, gradient: Tensor) -> None:
        self.again.hold()
        self.optimizer.gradient.copy_(gradient)
        self.optimizer.adamw(self.lr, self.max_norm, length(gradient))

    def log(self, **metrics: float) -> None:
        for name, value in metrics.items():
            self.again.meter.add(name, value, 1)
