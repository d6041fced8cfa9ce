"""A loss is a sum over what is at hand and a count over the whole batch, so that no split can change a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class Term:
    """One summand of a loss, or one metric: `sum / count`.

    sum: scalar, over the rows of this micro-batch.
    count: over the whole batch that one optimizer step uses, across micro-batches and ranks: what a loss divides by.
    here: the same count over the rows of this micro-batch: what a metric divides by.
    """

    sum: Tensor
    count: float
    here: float

    @cached_property
    def value(self) -> Tensor:
        return self.sum / max(self.count, 1e-12)


class Loss:
    """Named terms that are added, and named metrics that are only reported.

    >>> Loss(policy=batch.mean(-gain)).log(clipped=batch.mean(clipped))
    """

    def __init__(self, **terms: Term) -> None:
        self.terms = terms
        self.asides: dict[str, Term] = {}
        self.metrics: dict[str, Term] = {}
        self.peaks: dict[str, float] = {}

    @property
    def value(self) -> Tensor:
        """The scalar to differentiate: summed over micro-batches it is the loss of the whole batch."""
        parts = [term.value for term in self.terms.values()]
        return sum(parts[1:], start=parts[0])

    def add(self, **terms: Term) -> Loss:
        """Further summands."""
        self.terms.update(terms)
        return self

    def aside(self, **terms: Term) -> Loss:
        """Terms that are not added, for a method's own step to ask about by name: constraints, divergences."""
        self.asides.update(terms)
        return self

    def log(self, **metrics: Term) -> Loss:
        """Report these means beside the terms; they carry no gradient."""
        self.metrics.update({name: Term(m.sum.detach(), m.count, m.here) for name, m in metrics.items()})
        return self

    def peak(self, **values: Tensor) -> Loss:
        """Report the largest of each, over all elements, micro-batches and ranks of an optimizer step."""
        self.peaks.update({name: float(x.detach().max()) for name, x in values.items() if x.numel()})
        return self
