"""What a comparison says: two tensors, how far they lie apart, and a checked reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .draw import Draw, draw

EXACT, CLOSE = 1e-10, 1e-6
SEEDS = range(5)


@dataclass(frozen=True)
class Cause:
    """Why two numbers differ, and both of them again with that cause taken away."""

    why: str
    ours: Tensor
    theirs: Tensor


@dataclass(frozen=True)
class Row:
    """One quantity of one objective, from one draw.

    ours, theirs: the same shape.  For `quantity` "split" and "padding" both come from one library: the number from the
    whole batch, and the number from the same batch cut into micro-batches or padded wider.
    """

    objective: str
    peer: str
    entry: str
    quantity: str
    ours: Tensor
    theirs: Tensor
    cause: Cause | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.objective, self.peer, self.entry, self.quantity


@dataclass(frozen=True)
class Finding:
    """What all draws together say of one quantity."""

    objective: str
    peer: str
    entry: str
    quantity: str
    difference: float  # the largest of all draws
    why: str  # empty where nothing needs explaining
    residual: float | None  # the largest difference once the cause is taken away

    @property
    def verdict(self) -> str:
        for bound in (EXACT, CLOSE):
            if self.difference <= bound:
                return f"agree at {bound:.0e}".replace("e-0", "e-")
        return "disagree" if self.explained else "UNEXPLAINED"

    @property
    def agrees(self) -> bool:
        return self.difference <= CLOSE

    @property
    def explained(self) -> bool:
        """Nothing to explain, or the difference vanishes with its cause."""
        return self.agrees or (self.residual is not None and self.residual <= EXACT)


Comparison = Callable[[Draw], Iterable[Row]]


def difference(ours: Tensor, theirs: Tensor) -> float:
    """max |theirs − ours| / max |ours|: relative to the largest entry; inf where either is not finite."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    ours, theirs = ours.detach().double(), theirs.detach().double()
    if not (ours.isfinite().all() and theirs.isfinite().all()):
        return torch.inf
    gap, scale = float((theirs - ours).abs().max()), float(ours.abs().max())
    return gap / scale if scale else (torch.inf if gap else 0.0)


def findings(comparisons: Iterable[Comparison], seeds: Iterable[int] = SEEDS) -> list[Finding]:
    """Every comparison on every draw; the largest difference of each quantity counts, in order of appearance."""
    merged: dict[tuple[str, str, str, str], list[Row]] = {}
    seeds = list(seeds)
    for compare in comparisons:
        for seed in seeds:
            for row in compare(draw(seed)):
                merged.setdefault(row.key, []).append(row)
    return [_merge(rows) for rows in merged.values()]


def _merge(rows: list[Row]) -> Finding:
    causes = [row.cause for row in rows if row.cause is not None]
    assert len(causes) in (0, len(rows)), rows[0].key
    gap = max(difference(row.ours, row.theirs) for row in rows)
    residual = max((difference(cause.ours, cause.theirs) for cause in causes), default=None)
    needs = causes and gap > EXACT
    return Finding(*rows[0].key, gap, causes[0].why if needs else "", residual if needs else None)


def pairs(findings: Iterable[Finding]) -> Iterator[tuple[str, str, str]]:
    """(objective, peer, entry) of every comparison, each once."""
    yield from dict.fromkeys((f.objective, f.peer, f.entry) for f in findings)
