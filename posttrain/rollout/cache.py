"""Keys and values of living rows: a place for each, one for every prompt, and one for what all prompts share."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from posttrain.core.errors import UserError
from posttrain.core.placement import HOST
from posttrain.nets.architecture import Architecture
from posttrain.nets.kernels import Stored, addresses
from posttrain.nets.precision import at_least_fp32

LEAST_BYTES, MOST_BYTES = 64 << 20, 2 << 30  # of the budget that nobody chose
FREE_SHARE = 0.25  # of the free memory that it may take
HIDDEN_BYTES = 16  # of each number of the residual stream, what is made of it on the way to logits
SCORE_BYTES = 16  # a query head, a key and a row: its score, and what the softmax makes of it
CONTROL_GROUP = Path("/sys/fs/cgroup")


def default_bytes(device: torch.device = HOST) -> int:
    """A quarter of the device's free memory, rounded down to a power of two, within bounds, which the host's has above.

    Rounding keeps the number, and with it the shape and the last bits of every product, the same from run to run
    unless memory runs short.
    """
    free = free_bytes() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    wanted = MOST_BYTES if free is None else int(FREE_SHARE * free)
    size = max(1 << (max(wanted, 1).bit_length() - 1), LEAST_BYTES)
    return min(size, MOST_BYTES) if device.type == "cpu" else size


def free_bytes() -> int | None:
    """Memory that is free, or what the control group has left of it; None where the system does not tell."""
    info = Path("/proc/meminfo")
    if not info.is_file():
        return None
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in info.read_text().splitlines()}
    free = sizes.get("MemAvailable")
    limit, used = ((CONTROL_GROUP / name) for name in ("memory.max", "memory.current"))
    if free is not None and limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        free = min(free, max(0, int(limit.read_text()) - int(used.read_text())))
    return free


Where = tuple[slice | Tensor, slice, int | Tensor]


class Room(NamedTuple):
    """What fits at a time."""

    rows: int
    prompts: int


@dataclass(frozen=True)
class Shape:
    """What the rows of one call keep."""

    arch: Architecture
    dtype: torch.dtype
    shared: int  # tokens with which every prompt begins
    rest: int  # of the longest prompt's tokens, those after them
    limit: int  # new tokens of a row
    drawn: int  # bytes that a row takes while its next token is drawn

    def bytes(self, rows: int, prompts: int) -> int:
        """Of so many rows and prompts at a time: keys and values; and a step's scores, the logits with which rows join
        their prompts', or what a draw takes, which come in turn."""
        token = 2 * self.arch.layers * self.arch.kv_heads * self.arch.head_width * self.dtype.itemsize
        scores = SCORE_BYTES * self.arch.heads * (self.shared + self.rest + self.limit)
        joining = (rows + prompts) * (self.arch.vocabulary * self.dtype.itemsize + HIDDEN_BYTES * self.arch.width)
        step = max(rows * scores, joining, rows * self.drawn)
        return token * (self.shared + prompts * self.rest + rows * self.limit) + step

    def in_grains(self, grain: int) -> Shape:
        """One that holds no less, with tokens in whole grains, so that calls which differ a little are alike."""
        shared = self.shared - self.shared % grain
        rest, limit = (-(-tokens // grain) * grain for tokens in (self.shared + self.rest - shared, self.limit))
        return replace(self, shared=shared, rest=rest, limit=limit)

    def room(self, budget: int, prompts: int, samples: int) -> Room:
        """What fits in `budget` bytes of `samples` rows to each of `prompts` prompts.

        There are places for twice the prompts that the rows would need side by side, since some rows outlive the
        others of their prompt.

        Raises:
            UserError: if not a single row fits.
        """
        def with_prompts(rows: int) -> Room:
            return Room(rows, min(prompts, rows, 2 * -(-rows // samples)))

        rows = bisect_right(range(1, prompts * samples + 1), budget, key=lambda n: self.bytes(*with_prompts(n)))
        if rows == 0:
            raise UserError(f"cache_bytes = {budget}: one row of {self.limit} new tokens after a prompt of "
                            f"{self.shared + self.rest} takes {self.bytes(1, 1)}")
        return with_prompts(rows)


@dataclass(frozen=True)
class Fold:
    """Rows [b, ...] as [P, depth, ...], so that one product serves all rows of a prompt.

    index [b]: where each row is in [P · depth]; None: in order, all of it taken.
    """

    prompts: int
    depth: int
    index: Tensor | None

    @classmethod
    def of(cls, place: Tensor, prompts: int, depth: int = 0) -> Fold:
        """place [b]: the prompt, in [0, P), of each row; depth: 0 for the most rows that one has."""
        counts = torch.bincount(place, minlength=prompts)
        depth = depth or int(counts.max())
        order = place.argsort(stable=True)
        rank = torch.empty_like(place)
        rank[order] = torch.arange(len(place)) - (counts.cumsum(0) - counts)[place[order]]
        index = place * depth + rank
        whole = len(place) == prompts * depth and torch.equal(index, torch.arange(len(place)))
        return cls(prompts, depth, None if whole else index)

    def fold(self, x: Tensor) -> Tensor:
        """[b, K, R, D] -> [P, K, depth R, D], zeros where a prompt has fewer rows."""
        _, k, r, d = x.shape
        if self.index is not None:
            x = x.new_zeros(self.prompts * self.depth, k, r, d).index_copy_(0, self.index, x)
        return x.reshape(self.prompts, self.depth, k, r, d).transpose(1, 2).reshape(self.prompts, k, -1, d)

    def unfold(self, x: Tensor) -> Tensor:
        """[P, K, depth R, D] -> [b, K, R, D]."""
        p, k, n, d = x.shape
        x = x.view(p, k, self.depth, -1, d).transpose(1, 2).reshape(p * self.depth, k, n // self.depth, d)
        return x if self.index is None else x[self.index]


class Folds(Protocol):
    """Rows [b, K, R, D] as [prompts, K, depth R, D] and back."""

    @property
    def prompts(self) -> int: ...

    def fold(self, x: Tensor) -> Tensor: ...

    def unfold(self, x: Tensor) -> Tensor: ...


class Cache:
    """Rows live in the places [0, b), prompts in [0, p); whoever leaves is replaced by one of the last."""

    def __init__(self, shape: Shape, room: Room, device: torch.device = HOST) -> None:
        self.shape, self.room = shape, room

        def store(places: int, tokens: int) -> Tensor:
            arch = shape.arch
            return torch.zeros(arch.layers, 2, places, arch.kv_heads, tokens, arch.head_width, dtype=shape.dtype,
                               device=device)

        self.root, self.prompts, self.rows = store(1, shape.shared), store(room.prompts, shape.rest), store(
            room.rows, shape.limit)
        # (keys, values) of every layer, views made once
        self.root_layers, self.prompt_layers, self.row_layers = (
            [(layer[0], layer[1]) for layer in whole] for whole in (self.root, self.prompts, self.rows))

        # the same as addresses, [layers, 6]: of what all share, of prompts and of rows
        self.where = torch.stack([addresses(*root, *prompts, *rows) for root, prompts, rows in zip(
            self.root_layers, self.prompt_layers, self.row_layers, strict=True)])

    @property
    def bytes(self) -> int:
        return sum(whole.numel() * whole.itemsize for whole in (self.root, self.prompts, self.rows))

    def write(self, layer: int, keys: Tensor, values: Tensor, where: Where) -> None:
        """One token of every living row, [b, K, D] each: `where` indexes places, heads and columns."""
        for store, new in zip(self.row_layers[layer], (keys, values), strict=True):
            store[where] = new

    def attend(self, layer: int, query: Tensor, width: int, fold: Folds, everyone: Folds, bias: Tensor) -> Tensor:
        """Rows over what all share, their prompt and their first `width` tokens, with one softmax.

        query [b, K, R, D], already scaled; bias [b, 1, 1, shared + rest + width].  Returns [b, K, R, D].
        """
        above, own = self.seen(layer, len(query), width, fold, everyone)
        scores = [f.unfold(f.fold(query) @ k.transpose(-1, -2)) for (k, _), f in above]
        scores.append(query @ own[0].transpose(-1, -2))
        weights = torch.softmax(at_least_fp32(torch.cat(scores, -1)) + bias, -1).to(query.dtype)
        *parts, last = weights.split([s.shape[-1] for s in scores], -1)
        outputs = [f.unfold(f.fold(part) @ v) for part, ((_, v), f) in zip(parts, above, strict=True)]
        outputs.append(last @ own[1])
        return sum(outputs[1:], start=outputs[0])  # in the order of the training pass, so that both round alike

    def seen(self, layer: int, rows: int, width: int, fold: Folds, everyone: Folds
             ) -> tuple[list[tuple[Stored, Folds]], Stored]:
        """(keys, values) of what rows share, each with those who do, and their own."""
        own = [x[:rows, :, :width] for x in self.row_layers[layer]]
        above: list[tuple[Stored, Folds]] = [([x[: fold.prompts] for x in self.prompt_layers[layer]], fold)]
        if self.shape.shared:
            above.insert(0, (self.root_layers[layer], everyone))
        return above, own

    def move_rows(self, old: Tensor, new: Tensor, width: int) -> None:
        """The first `width` tokens of rows in the places `old` to the places `new`."""
        for layer in self.rows if len(old) else ():
            layer[:, new, :, :width] = layer[:, old, :, :width]

    def move_prompts(self, old: Tensor, new: Tensor) -> None:
        for layer in self.prompts if len(old) else ():
            layer[:, new] = layer[:, old]


def close_gaps(stays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """stays [b] bool -> (who is in each place afterwards, places that move, where to): the last ones fill the gaps."""
    left = int(stays.sum())
    gaps, movers = (~stays[:left]).nonzero()[:, 0], left + stays[left:].nonzero()[:, 0]
    order = torch.arange(left)
    order[gaps] = movers
    return order, movers, gaps


def rest_bias(lengths: Tensor, shared: int, rest: int) -> Tensor:
    """[b, 1, 1, shared + rest]: 0 where a row may look at its prompt, −∞ beyond its end; lengths [b] are of rests."""
    beyond = torch.arange(-shared, rest) >= lengths[:, None]
    return torch.zeros(beyond.shape).masked_fill_(beyond, -torch.inf)[:, None, None]
