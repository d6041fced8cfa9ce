"""The processes that share an update.  Every one holds the whole batch and the same weights, and learns from a part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from posttrain.core import every

if TYPE_CHECKING:
    from posttrain.train.loop import Meter


class Ranks(Protocol):
    """How an update is shared out and put together again."""

    def share(self, unit: Tensor) -> Tensor:
        """The rows [b] that this process learns from, units whole: unit [B]."""
        ...

    def add(self, x: Tensor) -> None:
        """Sum over all processes, in place."""
        ...

    def largest(self, x: float) -> float:
        """The largest over all processes."""
        ...

    def gather(self, meter: Meter, losses: Mapping[str, float]) -> tuple[Meter, Mapping[str, float]]:
        """All processes' metrics in one, and their parts of each loss term added."""
        ...


class Alone:
    """One process does everything."""

    def share(self, unit: Tensor) -> Tensor:
        return every(len(unit))

    def add(self, x: Tensor) -> None:
        pass

    def largest(self, x: float) -> float:
        return x

    def gather(self, meter: Meter, losses: Mapping[str, float]) -> tuple[Meter, Mapping[str, float]]:
        return meter, losses


ALONE = Alone()


class Together:
    """The processes of torch.distributed's default group, over gloo; sums are in rank order, so the same everywhere."""

    def __init__(self) -> None:
        self.size, self.rank = torch.distributed.get_world_size(), torch.distributed.get_rank()

    def share(self, unit: Tensor) -> Tensor:
        chosen = unit.unique().tensor_split(self.size)[self.rank]
        return torch.isin(unit, chosen).nonzero()[:, 0]

    def add(self, x: Tensor) -> None:
        torch.distributed.all_reduce(x)

    def largest(self, x: float) -> float:
        found = torch.tensor(x, dtype=torch.float64)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return float(found)

    def gather(self, meter: Meter, losses: Mapping[str, float]) -> tuple[Meter, Mapping[str, float]]:
        every: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(every, (meter, dict(losses)))
        total: dict[str, float] = defaultdict(float)
        for part in every:
            for name, value in part[1].items():
                total[name] += value
        every[0][0].merge(*(part[0] for part in every[1:]))
        return every[0][0], total
