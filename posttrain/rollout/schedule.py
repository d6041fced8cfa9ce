"""Continuous batching: prompts that wait join as rows finish, so that long and short completions do not wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from posttrain.nets.precision import at_least_fp32
from posttrain.nets.trace import NOTHING, Noting, Trace
from posttrain.nets.transformer import Arithmetic, Attend, Heads, Transformer
from posttrain.nets.tree import attend, build_level, common_prefix, level_ranges, look_bias
from posttrain.rollout.buckets import GRAIN, Buckets, Seats
from posttrain.rollout.cache import Cache, Fold, Room, Shape, Where, close_gaps, rest_bias
from posttrain.rollout.engine import Completions, Sampling, empty_completions
from posttrain.rollout.packed import Packed
from posttrain.rollout.sampler import Draw, draw_there, drawn_bytes, endings
from posttrain.rollout.words import completes

JOIN = 1 / 8  # of the places must be free before rows join: a prefill of several prompts reads the weights once
PREFILL_TOKENS = 8192  # of one prefill, padding counted
PREFILL_SCORES = 1 << 24  # of one product of queries and keys

Replay = Callable[[Shape, Room, Sampling, int], Buckets]  # for so many samples to a prompt


class Schedule:
    """The rows of one call.  R rows in all, b of them alive, which the cache holds in its first b places.

    What a row draws depends on its prompt and its own uniform numbers alone, not on who else is alive: company changes
    the shapes of products, and so the rounding of log-probabilities.
    """

    def __init__(self, net: Transformer, by: Packed, decode: Callable[[list[int]], str],
                 prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling, uniform: Tensor, budget: int,
                 replay: Replay | None = None, trace: Trace | None = None) -> None:
        """uniform [R, max_new_tokens]; budget: bytes of the cache and of what a step makes of living rows.

        replay: steps of fixed shapes, in whose cache the rows then live.  Who they are, and what they have drawn, is
        kept in the host's memory all the same.
        trace: where to leave what products give; not with `replay`.

        Raises:
            UserError: if not a single row fits in the budget.
        """
        self.net, self.by, self.decode = net, by, decode
        self.prompts, self.samples, self.sampling, self.uniform = prompts, samples, sampling, uniform
        self.lengths, shared = torch.tensor([len(p) for p in prompts]), common_prefix(prompts)
        shape = Shape(net.arch, net.head.dtype, shared, int(self.lengths.max()) - shared, sampling.max_new_tokens,
                      drawn_bytes(sampling, net.head))
        shape = shape if replay is None else shape.in_grains(GRAIN)
        room = shape.room(budget, len(prompts), samples)
        self.buckets = None if replay is None else replay(shape, room, sampling, samples)
        self.cache = Cache(shape, room, net.head.device) if self.buckets is None else self.buckets.cache
        self.seen = F.pad(endings(prompts, sampling.memory).repeat_interleave(samples, 0), (0, uniform.shape[1]))
        self.out = empty_completions(self.seen[:, sampling.memory:])
        self.stop_tokens = torch.tensor(sampling.stop_tokens, dtype=torch.long)
        self.waiting = 0  # the first row that has not joined, and with it all later ones
        self.opened = 0  # prompts that have been computed
        self.row = self.drawn = torch.empty(0, dtype=torch.long)  # [b] who is alive, and with how many tokens
        self.seated = False  # whether the buckets know of them
        self.held = torch.empty(0, dtype=torch.long)  # [p] prompts in the cache
        self.place = torch.zeros(len(prompts), dtype=torch.long)  # where each of them is
        # hidden states of their last tokens
        self.last = at_least_fp32(net.head.new_zeros(self.cache.room.prompts, net.arch.width))
        self.trace = trace
        self.products: Arithmetic = by if trace is None else Noting(by, trace)
        self.root_slot = self._told(NOTHING, prompts[0][: shape.shared])
        self.slot = [NOTHING] * len(self.seen)  # of each row's newest token that was read
        if shape.shared:
            self._fill([prompts[0][: shape.shared]], 0, self.cache.root_layers, 0)

    def run(self) -> Completions:
        while self.waiting < len(self.seen) or len(self.row):
            ready = self._ready()
            enough = max(1, int(JOIN * self.cache.room.rows))
            if ready and (ready >= min(enough, len(self.seen) - self.waiting) or not len(self.row)):
                self._join(ready)
            elif self.buckets is None:
                self._take(torch.arange(len(self.row)), self._logits(self._step(), self.row))
            else:
                self._replay(self.buckets)
        return self.out

    # ------------------------------------------------------------------ who is alive

    def _ready(self) -> int:
        """Rows that wait and could join now: they have places, and so have their prompts."""
        room, waiting = self.cache.room, len(self.seen) - self.waiting
        prefilled = self.opened * self.samples - self.waiting  # of a prompt that some rows did not fit beside
        return min(waiting, room.rows - len(self.row), prefilled + (room.prompts - len(self.held)) * self.samples)

    def _join(self, count: int) -> None:
        """The next rows, computing those of their prompts that are new, and drawing their first tokens."""
        rows = torch.arange(self.waiting, self.waiting + count)
        self.waiting += count
        self._open(range(self.opened, int(rows[-1]) // self.samples + 1))
        places = torch.arange(len(self.row), len(self.row) + count)
        self.row, self.drawn = torch.cat([self.row, rows]), torch.cat([self.drawn, torch.zeros_like(rows)])
        prompts, which = self.place[rows // self.samples].unique(return_inverse=True)
        self._regroup()
        device, any_row = self.last.device, torch.zeros_like(prompts).scatter_(0, which, rows)
        self._take(places, self._logits(self.last[prompts.to(device)], any_row)[which.to(device)])

    def _open(self, new: range) -> None:
        """Compute these prompts into the cache's next places."""
        shape = self.cache.shape
        at_once = max(1, PREFILL_TOKENS // shape.rest)
        for first in range(new.start, new.stop, at_once):
            part = torch.arange(first, min(first + at_once, new.stop))
            self.place[part] = places = torch.arange(len(self.held), len(self.held) + len(part))
            own = [self.prompts[p][shape.shared:] for p in part.tolist()]
            self.last[places] = self._fill(own, shape.shared, self.cache.prompt_layers, len(self.held))
            for p, tokens in zip(part.tolist(), own, strict=True):
                rows = slice(p * self.samples, (p + 1) * self.samples)
                self.slot[rows] = [self._told(self.root_slot, tokens)] * self.samples
            self.held = torch.cat([self.held, part])
        self.opened = max(self.opened, new.stop)

    def _take(self, places: Tensor, logits: Tensor) -> None:
        """Draw the next token of the rows in these places; those that end leave."""
        row, t, memory = self.row[places], self.drawn[places], self.sampling.memory
        before = self.seen[row[:, None], t[:, None] + torch.arange(memory)]
        gone = self._note(places, row, t, draw_there(logits, self.uniform[row, t], self.sampling, before))
        if gone.any():
            self._leave(places[gone])

    def _note(self, places: Tensor, row: Tensor, t: Tensor, new: Draw) -> Tensor:
        """Write down token t [b] of the rows in these places; [b] bool: those that end with it."""
        token, self.out.logp[row, t], self.out.log_kept[row, t] = new
        self.seen[row, self.sampling.memory + t] = token
        self.drawn[places] = t + 1
        stopped = self._stopped(row, token, t + 1)
        self.out.lengths[row[stopped]] = t[stopped] + 1
        self.out.finished[row[stopped]] = True
        return stopped | (t + 1 == self.sampling.max_new_tokens)

    def _replay(self, buckets: Buckets) -> None:
        """The next tokens of all living rows, some at a time; those that end among them leave."""
        memory, t = self.sampling.memory, self.drawn
        if not self.seated:
            token = self.seen[self.row, memory + t - 1]
            buckets.seat(Seats(token, t, self.start, self.prompt_place, len(self.held),
                               self.uniform[self.row]))
            self.seated = True
        before = self.seen[self.row[:, None], t[:, None] + torch.arange(memory)]
        new = buckets.run(self.sampling.max_new_tokens - int(t.max()), before)
        places, gone = torch.arange(len(self.row)), []
        for draw in zip(*new, strict=True):
            row = self.row[places]
            ended = self._note(places, row, self.drawn[places], Draw(*(x[places] for x in draw)))
            gone.append(places[ended])
            places = places[~ended]
        if len(places) < len(self.row):
            self._leave(torch.cat(gone))

    def _stopped(self, row: Tensor, token: Tensor, count: Tensor) -> Tensor:
        """[b] bool: rows that ended with this token, of `count` tokens."""
        stop, strings = torch.isin(token, self.stop_tokens), self.sampling.stop_strings
        for i in (~stop).nonzero()[:, 0].tolist() if strings else ():
            stop[i] = completes(self.decode, self.out.tokens[row[i], : count[i]].tolist(), strings)
        return stop

    def _leave(self, places: Tensor) -> None:
        """Rows leave, and prompts without a row that lives or waits; the last ones take their places."""
        stays = torch.ones(len(self.row), dtype=torch.bool)
        stays[places] = False
        order, old, new = close_gaps(stays)
        self.row, self.drawn = self.row[order], self.drawn[order]
        if len(new):
            self.cache.move_rows(old, new, int(self.drawn[new].max()))
        needed = torch.isin(self.held, self.row // self.samples) | (self.held == self.waiting // self.samples)
        if not needed.all():
            order, old, new = close_gaps(needed)
            self.held, self.last[new] = self.held[order], self.last[old]
            self.cache.move_prompts(old, new)
            self.place[self.held] = torch.arange(len(self.held))
        self._regroup()

    def _regroup(self) -> None:
        """What the next steps need to know of the rows now alive."""
        shape, prompt = self.cache.shape, self.row // self.samples
        self.start, self.prompt_place, self.seated = self.lengths[prompt], self.place[prompt], False
        if len(self.row) and self.buckets is None and not self.by.kernels:
            self.fold = Fold.of(self.prompt_place, len(self.held))
            self.everyone = Fold(1, len(prompt), None)
            self.prompt_bias = rest_bias(self.start - shape.shared, shape.shared, shape.rest)

    # ------------------------------------------------------------------ the model

    def _logits(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """Of hidden states [n, d] after the newest tokens of these rows [n]."""
        logits = self.by.logits(hidden)
        if self.trace is not None:
            self.trace.note_logits([self.slot[row] for row in rows.tolist()], logits)
        return logits

    def _told(self, before: int, tokens: Sequence[int]) -> int:
        """The trace's slot of the last of these tokens, which are read after the one in slot `before`."""
        return before if self.trace is None else [before, *self.trace.chain(before, tokens)][-1]

    def _step(self) -> Tensor:
        """Hidden states [b, d] after every row's newest token, which goes into the cache."""
        token = self.seen[self.row, self.sampling.memory + self.drawn - 1]
        if self.trace is not None:
            rows = self.row.tolist()
            for row, slot in zip(rows, self.trace.reading([self.slot[r] for r in rows], token.tolist()), strict=True):
                self.slot[row] = slot
        positions = self.start + self.drawn - 1
        if self.by.layers is not None:
            return self.net.last(self.by.layers(self.net.first(token), self.net.rotation(positions), self.cache,
                                                self.prompt_place, self.start, self.drawn, self.trace))
        attend_ = self._compiled(positions) if self.by.kernels else self.net.turned(positions, self._newest(), self.by)
        return self.net.last(self.net.body(token, attend_, self.products))

    def _compiled(self, positions: Tensor) -> Attend:
        """What a layer does with the rows' newest tokens, in one call."""
        by, cache, rotation = self.by, self.cache, self.net.rotation(positions)

        def attend_(i: int, qkv: Tensor) -> Tensor:
            return by.attend(i, qkv, rotation[i], cache.root_layers[i], cache.prompt_layers[i], self.prompt_place,
                             cache.row_layers[i], self.start, self.drawn)

        return attend_

    def _newest(self) -> Heads:
        """The same in torch's operations, of queries and keys that are turned already."""
        arch, at, width = self.net.arch, self.drawn - 1, int(self.drawn.max())
        even = bool((self.drawn == width).all())
        where: Where = (slice(0, len(at)), slice(None), width - 1) if even else (torch.arange(len(at)), slice(None), at)
        biases = self._biases(width, even)

        def look(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.cache.write(i, k, v, where)
            q = (q * q.shape[-1]**-0.5).view(len(q), k.shape[1], -1, q.shape[-1])
            return self.cache.attend(i, q, width, self.fold, self.everyone, biases[arch.reach(i)])

        return look

    def _biases(self, width: int, even: bool) -> dict[int | None, Tensor]:
        """For every reach [b, 1, 1, shared + rest + width]: −∞ at what a row's newest token does not look at."""
        shape, at, own = self.cache.shape, self.drawn - 1, torch.arange(width)
        everything = F.pad(self.prompt_bias, (0, width))
        if not even:
            everything[:, 0, 0, -width:].masked_fill_(own > at[:, None], -torch.inf)
        now = (self.start + at)[:, None]
        biases = dict.fromkeys(self.net.arch.reaches, everything)
        for reach in biases:
            if reach is not None and int(now.max()) >= reach:
                prompt = torch.arange(shape.shared + shape.rest).expand(len(at), -1)
                far = torch.cat([prompt, self.start[:, None] + own], 1) <= now - reach
                biases[reach] = everything.masked_fill(far[:, None, None], -torch.inf)
        return biases

    def _fill(self, segments: Sequence[Sequence[int]], start: int, layers: list[tuple[Tensor, Tensor]], first: int
              ) -> Tensor:
        """Tokens that begin at position `start`, after what all share, into the places from `first` on of `layers`.

        Returns the hidden state of each segment's last token, [S, d].
        """
        arch, device = self.net.arch, self.net.head.device
        level, ids = build_level(segments, [start] * len(segments))
        level = level.to(device)
        above = [torch.arange(start, device=device)[None]] if start else []
        at_once = max(1, PREFILL_SCORES // (level.segments * arch.heads * (start + level.width)))
        parts = [range(i, min(i + at_once, level.width)) for i in range(0, level.width, at_once)]

        def look(part: range, reach: int | None) -> Tensor:
            keys = [*above, level.positions[:, : part.stop]]
            return look_bias(level.positions[:, part.start : part.stop], keys, reach)

        levels = [build_level([[0] * start], [0])[0]] * bool(start) + [level]
        ranges = cache(lambda reach: level_ranges(levels, len(levels) - 1, reach))

        bias = cache(look) if len(parts) == 1 else look  # what many layers share; long ones are made anew

        def fill(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            own = [level.pad(x).transpose(1, 2) for x in (k, v)]
            for store, new in zip(layers[i], own, strict=True):
                store[first : first + len(new), :, : level.width] = new
            if self.by.kernels:
                root_k, root_v = (x[0].transpose(0, 1) for x in self.cache.root_layers[i])
                stores = [(root_k, root_v)] * bool(start) + [(k, v)]
                return self.by.kernels.look(q.contiguous(), stores, ranges(arch.reach(i)))
            pairs = [([root] if start else [], o) for root, o in zip(self.cache.root_layers[i], own, strict=True)]
            q = level.pad((q * q.shape[-1]**-0.5).view(len(q), k.shape[1], -1, q.shape[-1]))
            out = []
            for part in parts:
                keys, values = ([*r, o[:, :, : part.stop]] for r, o in pairs)
                out.append(attend(q[:, part.start : part.stop], keys, values, bias(part, arch.reach(i))))
            return level.unpad(torch.cat(out, 1)).view(len(ids), -1, q.shape[-1])

        positions = level.positions.view(-1)[level.slots]
        x = self.net.body(torch.tensor(ids, device=device), self.net.turned(positions, fill, self.by),
                          self.products)
        return self.net.last(x[torch.tensor([len(s) for s in segments]).cumsum(0).to(device) - 1])
