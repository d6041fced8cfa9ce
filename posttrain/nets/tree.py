"""Token trees: what several sequences share is stored, and computed, once.

A rollout batch is a tree of three levels: the words that every prompt begins with (the chat template's head),
the rest of each prompt, and the completions.  Tokens of all segments are packed, level after level, into one
list; only attention sees them as padded segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from posttrain.nets.precision import at_least_fp32

NO_KEY = -1  # position of a padded slot: no query may look at it


@dataclass(frozen=True)
class Level:
    """S segments of at most N tokens; each segment of the level above owns S / S_above of them in a row."""

    slots: Tensor  # [n] long: where each packed token of the level sits in the padded [S * N]
    positions: Tensor  # [S, N] long: position in the whole sequence, NO_KEY where padded

    @property
    def segments(self) -> int:
        return self.positions.shape[0]

    @property
    def width(self) -> int:
        return self.positions.shape[1]

    def pad(self, packed: Tensor, dim: int = 0) -> Tensor:
        """[n, ...] -> [S, N, ...], zeros where padded; `dim`: where n is."""
        before, after = packed.shape[:dim], packed.shape[dim + 1 :]
        if packed.shape[dim] < self.positions.numel():
            padded = packed.new_zeros(*before, self.positions.numel(), *after)
            packed = padded.index_copy_(dim, self.slots, packed)
        return packed.view(*before, *self.positions.shape, *after)

    def unpad(self, padded: Tensor, dim: int = 0) -> Tensor:
        """[S, N, ...] -> [n, ...]; `dim`: where S is."""
        flat = padded.flatten(dim, dim + 1)
        return flat if len(self.slots) == flat.shape[dim] else flat.index_select(dim, self.slots)

    def regrouped(self, segments: int) -> Level:
        """The same tokens in fewer segments, each of as many of these in a row."""
        if segments == self.segments:
            return self
        lengths = (self.positions != NO_KEY).view(segments, -1).sum(1)
        present = torch.arange(max(1, int(lengths.max()))) < lengths[:, None]
        packed = self.positions.view(-1)[self.slots]
        positions = torch.full(present.shape, NO_KEY).masked_scatter(present, packed)
        return Level(present.view(-1).nonzero()[:, 0], positions)


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

    @cached_property
    def positions(self) -> Tensor:
        """[n] long: position of every packed token in its own sequence."""
        return torch.cat([level.positions.view(-1)[level.slots] for level in self.levels])

    @cached_property
    def sizes(self) -> list[int]:
        """Packed tokens in each level."""
        return [len(level.slots) for level in self.levels]

    def looks(self, reach: int | None = None) -> tuple[Look, ...]:
        """How every level looks at itself, then at each of its ancestors; `reach` as in `may_look`."""
        if reach not in self._looks:
            ends = list(accumulate(self.sizes))
            at = [slice(end - size, end) for size, end in zip(self.sizes, ends, strict=True)]
            self._looks[reach] = tuple(look(self.levels[i], at[i], self.levels[a], at[a], reach)
                                       for i in range(len(at)) for a in range(i, -1, -1)
                                       if self.sizes[i] and self.sizes[a])
        return self._looks[reach]

    @cached_property
    def _looks(self) -> dict[int | None, tuple[Look, ...]]:
        return {}


@dataclass(frozen=True)
class Look:
    """The tokens of one level as queries, those of an ancestor or of the level itself as keys, in G segments each."""

    queries: slice  # among all packed tokens
    keys: slice
    query_level: Level
    key_level: Level
    bias: Tensor | None  # [G, N_q, N_k] fp32: 0 or −inf; None: every query sees every key
    own: bool  # the keys are of the queries' own segments


def look(level: Level, queries: slice, ancestor: Level, keys: slice, reach: int | None) -> Look:
    """How the tokens of a level, packed at `queries`, look at those of an ancestor, or of itself, packed at `keys`."""
    grouped = level.regrouped(ancestor.segments)
    sees = may_look(grouped.positions, ancestor.positions, reach)
    bias = None if sees.all() else torch.zeros(sees.shape).masked_fill_(~sees, -torch.inf)
    return Look(queries, keys, grouped, ancestor, bias, level is ancestor)


def may_look(query: Tensor, key: Tensor, reach: int | None = None) -> Tensor:
    """Which key positions [S, N_k] each query position [S, N] sees, [S, N, N_k].

    reach: how many tokens a query sees, itself included; None: all before it.
    """
    key = key[:, None, :]
    near = (key != NO_KEY) & (key <= query[:, :, None])
    return near if reach is None else near & (key > query[:, :, None] - reach)


def look_bias(query: Tensor, keys: Sequence[Tensor], reach: int | None = None) -> Tensor:
    """0 or −inf, [S, 1, N, 1, Σ keys]: query positions [S, N] against every ancestor's key positions [S_a, N_a]."""
    sees = torch.cat([may_look(query, key.repeat_interleave(len(query) // len(key), 0), reach) for key in keys], -1)
    sees[..., 0] |= ~sees.any(-1)  # a padded query looks at something, so that its softmax is finite
    return torch.zeros(sees.shape).masked_fill_(~sees, -torch.inf)[:, None, :, None, :]


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all prompts share, leaving every prompt at least one token of its own."""
    shortest, first = min(map(len, prompts)) - 1, prompts[0]
    return next((i for i in range(shortest) if any(p[i] != first[i] for p in prompts)), max(shortest, 0))


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
