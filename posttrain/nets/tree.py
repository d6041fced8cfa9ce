"""Token trees: what several sequences share is stored, and computed, once.

A rollout batch is a tree of three levels: the words that every prompt begins with (the chat template's head),
the rest of each prompt, and the completions.  Tokens of all segments are packed, level after level, into one
list; only attention sees them as padded segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from posttrain.nets.precision import at_least_fp32

NO_KEY = -1  # position of a padded slot: no query may look at it


@dataclass(frozen=True)
class Level:
    """S segments of at most N tokens; each segment of the level above owns S / S_above of them in a row."""

    slots: Tensor  # [n] long: where each packed token of the level sits in the padded [S * N]
    positions: Tensor  # [S, N] long: position in the whole sequence, NO_KEY where padded

    def to(self, device: torch.device) -> Level:
        return Level(self.slots.to(device), self.positions.to(device))

    @property
    def segments(self) -> int:
        return self.positions.shape[0]

    @property
    def width(self) -> int:
        return self.positions.shape[1]

    def pad(self, packed: Tensor) -> Tensor:
        """[n, ...] -> [S, N, ...], zeros where padded."""
        if len(packed) == self.positions.numel():
            return packed.view(*self.positions.shape, *packed.shape[1:])
        padded = packed.new_zeros(self.positions.numel(), *packed.shape[1:]).index_copy(0, self.slots, packed)
        return padded.view(*self.positions.shape, *packed.shape[1:])

    def unpad(self, padded: Tensor) -> Tensor:
        """[S, N, ...] -> [n, ...]."""
        flat = padded.reshape(self.positions.numel(), *padded.shape[2:])
        return flat if len(self.slots) == len(flat) else flat[self.slots]


def build_level(segments: Sequence[Sequence[int]], starts: Sequence[int]) -> tuple[Level, list[int]]:
    """A level from its segments' tokens (empty ones allowed) and the position of each first token."""
    width = max(1, max(map(len, segments), default=1))
    lengths, first = torch.tensor([len(s) for s in segments]), torch.tensor(list(starts))
    offset = torch.arange(width).expand(len(segments), width)
    present = offset < lengths[:, None]
    positions = torch.where(present, first[:, None] + offset, NO_KEY)
    return Level(present.view(-1).nonzero()[:, 0], positions), [token for s in segments for token in s]


@dataclass(frozen=True)
class Tree:
    """Packed tokens of all levels, root first."""

    ids: Tensor  # [n] long
    levels: tuple[Level, ...]

    def to(self, device: torch.device) -> Tree:
        """Itself where it is there already, with what was made of it."""
        if self.ids.device == device:
            return self
        return Tree(self.ids.to(device), tuple(level.to(device) for level in self.levels))

    @cached_property
    def positions(self) -> Tensor:
        """[n] long: position of every packed token in its own sequence."""
        return torch.cat([level.positions.view(-1)[level.slots] for level in self.levels])

    @cached_property
    def sizes(self) -> list[int]:
        """Packed tokens in each level."""
        return [len(level.slots) for level in self.levels]

    @cached_property
    def parents(self) -> Tensor:
        """[n] long: packed index of the token before each one in its sequence; −1 for the first of all."""
        parent, start = torch.full((len(self.ids),), -1), 0
        own = torch.arange(len(self.levels)).repeat_interleave(torch.tensor(self.sizes))
        for i, size in enumerate(self.sizes):  # further down the tree is nearer
            begin, _, end = self.ranges()[:, i].unbind(1)
            end = end - (own == i).long()  # itself
            parent, start = torch.where(end > 0, start + begin + end - 1, parent), start + size
        return parent

    def biases(self, reach: int | None = None) -> list[Tensor]:
        """For each level [S, 1, N, 1, keys]: 0 where a query may look at a key of its ancestors or its own past."""
        if ("biases", reach) not in self.made:
            self.made["biases", reach] = [
                look_bias(level.positions, [a.positions for a in self.levels[: i + 1]], reach)
                for i, level in enumerate(self.levels)]
        biases: list[Tensor] = self.made["biases", reach]
        return biases

    def ranges(self, reach: int | None = None) -> Tensor:
        """[n, levels, 3] long: for each packed token where its segment begins in every level, and the first of that
        segment's tokens that it looks at and the one after the last."""
        if ("ranges", reach) not in self.made:
            of_each = (level_ranges(self.levels, own, reach) for own in range(len(self.levels)))
            self.made["ranges", reach] = torch.cat(list(of_each))
        ranges: Tensor = self.made["ranges", reach]
        return ranges

    @cached_property
    def made(self) -> dict[tuple[str, int | None], Any]:
        """What attention needs to know of the tree, by what it is and the reach: made once for all layers."""
        return {}


def level_ranges(levels: Sequence[Level], own: int, reach: int | None = None) -> Tensor:
    """[n, levels, 3] long: what each token of the level `own` looks at, of its ancestors and its own past.

    A segment's tokens lie side by side, so in every level it is where the segment begins, and from which of its tokens
    to which; reach: how many tokens it sees, itself included; None: all before it.
    """
    level = levels[own]
    segment, rank = level.slots // level.width, level.slots % level.width
    position = level.positions.view(-1)[level.slots]
    ranges = torch.zeros(len(level.slots), len(levels), 3, dtype=torch.long)
    for i, above in enumerate(levels[: own + 1]):
        its = segment // (level.segments // above.segments)
        counts = torch.bincount(above.slots // above.width, minlength=above.segments)
        count = rank + 1 if i == own else counts[its]
        far = torch.zeros_like(count)
        if reach is not None:
            far = (position - reach + 1 - above.positions[its, 0]).clamp(min=0).minimum(count)
        ranges[:, i] = torch.stack([(counts.cumsum(0) - counts)[its], far, count], 1)
    return ranges


def look_bias(query: Tensor, keys: Sequence[Tensor], reach: int | None = None) -> Tensor:
    """0 or −inf, [S, 1, N, 1, Σ keys]: query positions [S, N] against every ancestor's key positions [S_a, N_a].

    reach: how many tokens a query sees, itself included; None: all before it.
    """
    allowed = []
    for key in keys:
        key = key.repeat_interleave(len(query) // len(key), 0)[:, None, :]  # [S, 1, N_a]
        near = (key >= 0) & (key <= query[:, :, None])
        allowed.append(near if reach is None else near & (key > query[:, :, None] - reach))
    look = torch.cat(allowed, -1)
    look[..., 0] |= ~look.any(-1)  # a padded query looks at something, so that its softmax is finite
    return torch.zeros(look.shape, device=look.device).masked_fill_(~look, -torch.inf)[:, None, :, None, :]


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all prompts share, leaving every prompt at least one token of its own."""
    shortest, low, high = min(map(len, prompts)) - 1, min(map(tuple, prompts)), max(map(tuple, prompts))
    return next((i for i in range(shortest) if low[i] != high[i]), max(shortest, 0))  # what those two share, all do


def attend(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], bias: Tensor) -> Tensor:
    """Attention of padded segments over their ancestors and themselves, with one softmax over all.

    query [S, N, K, R, D] (K key heads, R queries to each, already scaled); keys, values [S_a, K, N_a, D] for every
    ancestor level a with S_a dividing S; bias broadcasts to [S, K, N, R, Σ N_a].  Returns [S, N, K, R, D].
    Queries that share an ancestor are folded into one matrix product, so its keys are never copied.
    """
    scores = [_unfold(_fold(query, len(k)) @ k.transpose(-1, -2), query.shape) for k in keys]
    weights = torch.softmax(at_least_fp32(torch.cat(scores, -1) if len(scores) > 1 else scores[0]) + bias, -1)
    parts = weights.to(query.dtype).split([k.shape[2] for k in keys], -1)
    outputs = [_unfold(_fold(w.permute(0, 2, 1, 3, 4), len(v)) @ v, query.shape)
               for w, v in zip(parts, values, strict=True)]
    return sum(outputs[1:], start=outputs[0]).permute(0, 2, 1, 3, 4)


def _fold(x: Tensor, segments: int) -> Tensor:
    """[S, N, K, R, D] -> [S_a, K, (S / S_a) N R, D]."""
    s, n, k, r, d = x.shape
    return x.reshape(segments, s // segments * n, k, r, d).transpose(1, 2).reshape(segments, k, -1, d)


def _unfold(x: Tensor, shape: torch.Size) -> Tensor:
    """[S_a, K, (S / S_a) N R, D'] -> [S, K, N, R, D']."""
    s, n, k, r, _ = shape
    y = x.view(len(x), k, s // len(x), n, r, x.shape[-1]).transpose(1, 2)
    return y.reshape(s, k, n, r, x.shape[-1])
