"""Decoding in batches of a few sizes: a step has the same shapes again and again, and can be replayed as a CUDA graph.

Rows, prompts and columns are rounded up to powers of two.  What a step reads and writes has a fixed place, and it goes
on from where it left: tokens are drawn on the device, some steps in a row, before the host looks who has ended.  A row
that ends earlier goes on for nothing until then, which nobody hears of; so does one that stands for nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from posttrain.nets.kernels import Stored
from posttrain.nets.transformer import Transformer
from posttrain.rollout.cache import Cache, Fold, Folds, Room, Shape
from posttrain.rollout.cascade import attend_apart, fold_biases, part_on
from posttrain.rollout.engine import Sampling
from posttrain.rollout.packed import Packed
from posttrain.rollout.sampler import Draw, draw

CHUNK = 8  # steps between two looks at who has ended
GRAIN = 16  # tokens to which lengths in the cache are rounded, and the least columns of a step


class Size(NamedTuple):
    """What a step has room for."""

    rows: int
    prompts: int
    width: int  # of a row's own tokens


class Seats(NamedTuple):
    """Who is alive: b rows in the first places of the cache, of the first p prompts."""

    token: Tensor  # [b] long, the newest of each
    drawn: Tensor  # [b] long ≥ 1, how many there are
    start: Tensor  # [b] long, tokens of the prompt
    place: Tensor  # [b] long in [0, p), where the prompt is
    prompts: int  # p
    uniform: Tensor  # [b, max_new_tokens] in [0, 1)


def bucket(count: int, most: int, least: int = 1) -> int:
    """The least power of two that is no less than `count` and `least`, and `most` beyond it."""
    return min(1 << (max(count, least) - 1).bit_length(), most)


@dataclass(frozen=True)
class Seated:
    """Rows of prompts, `depth` places to each; rows with the place after the last are nobody's."""

    prompts: int
    depth: int
    slot: Tensor  # [b] long

    @property
    def whole(self) -> Fold:
        return Fold(self.prompts, self.depth, None)

    def fold(self, x: Tensor) -> Tensor:
        places = self.prompts * self.depth
        return self.whole.fold(x.new_zeros(places + 1, *x.shape[1:]).index_copy_(0, self.slot, x)[:places])

    def unfold(self, x: Tensor) -> Tensor:
        return self.whole.unfold(x)[self.slot.clamp(max=self.prompts * self.depth - 1)]


Step = Callable[[], Tensor | None]  # all its tensors have fixed places; the logits where it has not drawn itself


def at_once(size: Size, step: Step) -> Tensor | None:
    """Run a step as it is."""
    return step()


class Graphs:
    """Run a step as a CUDA graph, captured when the first of its size comes."""

    def __init__(self, state: Tensor) -> None:
        """state: what a step moves on, beside the cache, which gets the same from a step that is run again."""
        self.state, self.pool = state, torch.cuda.graph_pool_handle()
        self.made: dict[Size, tuple[torch.cuda.CUDAGraph, Tensor | None]] = {}

    def __call__(self, size: Size, step: Step) -> Tensor | None:
        if size not in self.made:
            kept, aside = self.state.clone(), torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                step()  # so that libraries have what they need
            torch.cuda.current_stream().wait_stream(aside)
            self.state.copy_(kept)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool):
                out = step()
            self.made[size] = graph, out
        graph, out = self.made[size]
        graph.replay()
        return out


class Buckets:
    """The steps of calls that are alike: one cache, one way to sample, as many samples to a prompt."""

    def __init__(self, net: Transformer, by: Packed, shape: Shape, room: Room, sampling: Sampling, samples: int
                 ) -> None:
        """shape: in grains."""
        device = net.head.device
        self.net, self.by, self.sampling, self.samples = net, by, sampling, samples
        self.cache = Cache(shape, room, device)
        self.part = part_on(device)
        self.apart = set(net.arch.reaches) == {None}  # with a reach, a row may look at no key of its prompt
        self.draws_within = not (sampling.bad_words or sampling.logit_bias)  # else what it takes is the host's to say
        self.places = torch.arange(room.rows, device=device)
        self.state = torch.zeros(4, room.rows, dtype=torch.long, device=device)  # token, drawn, start, slot
        self.uniform = torch.zeros(room.rows, sampling.max_new_tokens, device=device)
        self.numbers = torch.zeros(2, room.rows, device=device)  # log p and log p − log q of the newest tokens
        self.replay = Graphs(self.state) if device.type == "cuda" else at_once

    def seat(self, seats: Seats) -> None:
        """These rows go on from here; others in their bucket stand for nobody, with the first token of a prompt."""
        room, shape = self.cache.room, self.cache.shape
        self.rows, self.longest = len(seats.token), int(seats.drawn.max())
        self.size = Size(bucket(self.rows, room.rows), bucket(seats.prompts, room.prompts), 0)
        nobody = torch.tensor([0, 1, shape.shared + 1, self.size.prompts * self.samples])
        state = nobody[:, None].repeat(1, self.size.rows)
        slots = Fold.of(seats.place, self.size.prompts, self.samples).index
        state[:, : self.rows] = torch.stack([seats.token, seats.drawn, seats.start,
                                             torch.arange(self.rows) if slots is None else slots])
        self.state[:, : self.size.rows] = state.to(self.state.device)
        self.uniform[: self.rows] = seats.uniform.to(self.uniform.device)

    def run(self, steps: int, before: Tensor) -> Draw:
        """The next tokens of every row, as many as `steps` or less, [k, b] each, in the host's memory.

        before: what `draw` wants to know; where it wants anything, k = 1.
        """
        steps = min(steps, CHUNK) if self.draws_within else 1
        size = self.size._replace(width=bucket(self.longest + steps - 1, self.cache.shape.limit, GRAIN))
        tokens, numbers = [], []
        for _ in range(steps):
            logits = self.replay(size, lambda: self._step(size))
            if logits is not None:
                self._draw(size, logits, before)
            tokens.append(self.state[0, : self.rows].clone())
            numbers.append(self.numbers[:, : self.rows].clone())
        self.longest += steps
        logp, log_kept = torch.stack(numbers).cpu().unbind(1)
        return Draw(torch.stack(tokens).cpu(), logp, log_kept)

    # ------------------------------------------------------------------ what is replayed

    def _step(self, size: Size) -> Tensor | None:
        """One step, and the logits where the drawing is left to the host."""
        logits = self._forward(size)
        if not self.draws_within:
            return logits
        self._draw(size, logits, None)
        return None

    def _forward(self, size: Size) -> Tensor:
        """Logits [rows, V] after every row's newest token, which goes into the cache."""
        token, drawn, start, slot = self.state[:, : size.rows]
        at = drawn - 1
        where = (self.places[: size.rows], slice(None), at)
        look = self._look(size, Seated(size.prompts, self.samples, slot), start, at)

        def newest(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.cache.write(i, k, v, where)
            return look(i, (q * q.shape[-1]**-0.5).view(len(q), k.shape[1], -1, q.shape[-1]))

        attend_ = self.net.turned(start + at, newest, self.by)
        return self.by.logits(self.net.last(self.net.body(token, attend_, self.by)))

    def _look(self, size: Size, fold: Folds, start: Tensor, at: Tensor) -> Callable[[int, Tensor], Tensor]:
        """Layer and query [b, K, R, D] -> [b, K, R, D]."""
        arch, shape, cache = self.net.arch, self.cache.shape, self.cache
        everyone = Fold(1, size.rows, None)
        biases = {reach: bias(shape, size.width, start, at, reach) for reach in set(arch.reaches)}
        if not self.apart:
            return lambda i, q: cache.attend(i, q, size.width, fold, everyone, biases[arch.reach(i)])

        def seen(i: int) -> tuple[list[tuple[Stored, Folds]], Stored]:
            return cache.seen(i, size.rows, size.width, fold, everyone)

        widths = [*([shape.shared] if shape.shared else []), shape.rest, size.width]
        parts = fold_biases(biases[None].to(shape.dtype), [those for _, those in seen(0)[0]], widths,
                            arch.heads // arch.kv_heads)
        return lambda i, q: attend_apart(q, *seen(i), parts, self.part)

    def _draw(self, size: Size, logits: Tensor, before: Tensor | None) -> None:
        """The next token of every row, and where its log-probabilities are found."""
        token, drawn, _, _ = self.state[:, : size.rows]
        uniform = self.uniform[: size.rows].gather(1, drawn[:, None])[:, 0]
        if before is not None:
            before = torch.cat([before, before[:1].expand(size.rows - len(before), -1)]).to(logits.device)
        new = draw(logits, uniform, self.sampling, before)
        self.numbers[:, : size.rows] = torch.stack([new.logp, new.log_kept])
        token.copy_(new.token)
        drawn.add_(1)


def bias(shape: Shape, width: int, start: Tensor, at: Tensor, reach: int | None) -> Tensor:
    """[b, 1, 1, shared + rest + width]: −∞ at what token `at` [b] after a prompt of `start` [b] does not look at."""
    above, own = (torch.arange(n, device=at.device) for n in (shape.shared + shape.rest, width))
    beyond = torch.cat([above >= start[:, None], own > at[:, None]], 1)
    if reach is not None:
        beyond |= torch.cat([above.expand(len(at), -1), start[:, None] + own], 1) <= (start + at)[:, None] - reach
    return torch.zeros(beyond.shape, device=at.device).masked_fill_(beyond, -torch.inf)[:, None, None]
