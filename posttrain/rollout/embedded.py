"""The embedded engine: no server, the policy's own weights, prompts computed once, rows that join and leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from posttrain.core.errors import UserError
from posttrain.nets.kernels import FEW
from posttrain.nets.trace import Trace, version
from posttrain.nets.transformer import Transformer
from posttrain.rollout.buckets import GRAIN, Buckets
from posttrain.rollout.cache import Shape, default_bytes
from posttrain.rollout.engine import Completions, Engine, Samples, Sampling
from posttrain.rollout.packed import Packed
from posttrain.rollout.sampler import drawn_bytes
from posttrain.rollout.schedule import Schedule

TRACE_BYTES = 1 << 30  # most of what is kept of sampling for the update


class EmbeddedEngine:
    """Generates with a `Transformer` in this process.

    replays: steps have a few fixed shapes, as CUDA graphs want; None: where the net is on a CUDA device.
    """

    def __init__(self, net: Transformer, decode: Callable[[list[int]], str], replays: bool | None = None) -> None:
        self.net, self.decode, self.cache_bytes = net, decode, default_bytes(net.head.device)
        self.replays = net.head.device.type == "cuda" if replays is None else replays
        self.buckets: Buckets | None = None  # of the newest call
        self.made: tuple[Any, ...] = ()  # for what
        self.update()

    @torch.no_grad()
    def update(self) -> None:
        self.net.trace, self.version = None, version(self.net)
        if self.buckets is None:
            self.by = Packed(self.net, packs=not self.replays)
        else:
            self.by.follow()

    def _replay(self, *asked: Any) -> Buckets:
        """Those of the call before, if it was alike and the weights are where they were."""
        made = (*asked, *(p.data_ptr() for p in self.net.parameters()))
        if self.buckets is None or self.made != made:
            self.buckets = None  # its memory, before more is asked for
            self.update()
            self.buckets, self.made = Buckets(self.net, self.by, *asked), made
        return self.buckets

    def keep_to(self, cache_bytes: int) -> None:
        self.cache_bytes = cache_bytes

    def rows_at_once(self, prompts: int, samples: int, prompt_tokens: int, sampling: Sampling) -> int:
        arch = self.net.arch
        shape = Shape(arch, self.net.head.dtype, 0, prompt_tokens, sampling.max_new_tokens,
                      drawn_bytes(sampling, self.net.head))
        shape = shape.in_grains(GRAIN) if self.replays else shape
        return shape.room(self.cache_bytes, prompts, samples).rows

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling,
                 generator: torch.Generator, trace: Trace | None = None) -> Completions:
        """trace: where to leave what products give, for an update of the same weights."""
        arch, limit = self.net.arch, sampling.max_new_tokens
        longest = max(map(len, prompts))
        if longest + limit > arch.context:
            raise UserError(f"max_new_tokens = {limit}: the longest prompt has {longest} tokens and the context "
                            f"{arch.context}; at most {arch.context - longest} new tokens fit")
        uniform = torch.rand(len(prompts) * samples, limit, generator=generator)
        self.by.few = len(uniform) <= FEW  # more agree with the training pass to the last bit, down to the last one
        return Schedule(self.net, self.by, self.decode, prompts, samples, sampling, uniform, self.cache_bytes,
                        self._replay if self.replays else None, trace).run()


class Traced:
    """The engine for rows that an update will follow: what their products gave is left with the net."""

    def __init__(self, engine: EmbeddedEngine, limit: int = TRACE_BYTES) -> None:
        self.engine, self.limit = engine, limit

    def generate(self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling,
                 generator: torch.Generator) -> Completions:
        net, tokens = self.engine.net, sum(len(p) + samples * sampling.max_new_tokens for p in prompts)
        if net.trace is None:
            net.trace = Trace(net, self.engine.version, tokens, self.limit)
        trace = net.trace if net.trace.takes(tokens) else None
        return self.engine.generate(prompts, samples, sampling, generator, trace)


def traced(engine: Engine) -> Samples:
    """The engine, with a trace where it can leave one: not in a GPU's memory, nor beside adapters, whose weights it
    samples with folded in."""
    if isinstance(engine, EmbeddedEngine) and not engine.replays and not engine.net.lora:
        return Traced(engine)
    return engine
