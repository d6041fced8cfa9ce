"""The embedded engine: no server, the policy's own weights, prompts computed once, finished rows left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from posttrain.core.errors import UserError
from posttrain.nets.transformer import Transformer
from posttrain.nets.tree import Tree, attend, build_level, common_prefix, look_bias
from posttrain.rollout.engine import Completions, Sampling
from posttrain.rollout.sampler import draw, endings

CACHE_BYTES = 2 << 30  # of keys and values that one wave of rows may hold
DENSE = 0.5  # the cache is packed anew when fewer than this share of its slots is alive


class PackedLinear:
    """Weights laid out for small products (oneDNN), made once per update; plain ones where that is not to be had."""

    def __init__(self, net: Transformer) -> None:
        self.net = net
        weights = {name: net.merged(name) for name, w in net.named_weights() if w.dim() == 2}
        reorder = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
        self.packed = None
        if reorder is not None and _packs(net.head):
            self.packed = {name: reorder(w.detach(), 64) for name, w in weights.items()}
        self.plain = weights

    def __call__(self, x: Tensor, name: str) -> Tensor:
        bias = self.net.weight(f"{name}_bias") if self.net.has(f"{name}_bias") else None
        x = x.to(self.plain[name].dtype)
        if self.packed is None:
            return F.linear(x, self.plain[name], bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed[name], bias, "none", [], "")
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        return self(hidden, "embed" if self.net.arch.tied else "head").float()


def _packs(weight: Tensor) -> bool:
    """Whether oneDNN multiplies by weights of this type on this machine."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    bf16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(bf16) or weight.dtype == torch.float32


@dataclass
class Cache:
    """Keys and values of every layer: [1 or P, K, N, D] shared, [P × G, K, N, D] of each row's own."""

    shared: list[tuple[list[Tensor], list[Tensor]]]  # per layer: the levels' keys, the levels' values
    own: list[tuple[Tensor, Tensor]]
    bias: Tensor  # [P × G, 1, 1, 1, shared keys + own keys]
    positions: Tensor  # [P × G, shared keys + own keys] long: of the keys

    def keep(self, prompts: Tensor, slots: Tensor) -> None:
        """Only these prompts, only these slots, in this order."""
        self.shared = [([k[0], k[1][prompts]], [v[0], v[1][prompts]]) for k, v in self.shared]
        self.own = [(k[slots], v[slots]) for k, v in self.own]
        self.bias, self.positions = self.bias[slots], self.positions[slots]

    def near(self, keys: int, reach: int | None) -> Tensor:
        """The bias of the first `keys` keys for a query at the last of them that sees `reach` tokens; None: all."""
        bias, positions = self.bias[..., :keys], self.positions[:, :keys]
        if reach is None:
            return bias
        return bias.masked_fill((positions <= positions[:, -1:] - reach)[:, None, None, None], -torch.inf)


class EmbeddedEngine:
    """Generates with a `Transformer` in this process."""

    def __init__(self, net: Transformer, decode: Callable[[list[int]], str]) -> None:
        self.net, self.decode = net, decode
        self.update()

    def update(self) -> None:
        with torch.no_grad():
            self.linear = PackedLinear(self.net)

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling,
                 generator: torch.Generator) -> Completions:
        arch, limit = self.net.arch, sampling.max_new_tokens
        longest = max(map(len, prompts))
        if longest + limit > arch.context:
            raise UserError(f"max_new_tokens = {limit}: the longest prompt has {longest} tokens and the context "
                            f"{arch.context}; at most {arch.context - longest} new tokens fit")
        uniform = torch.rand(len(prompts) * samples, limit, generator=generator)
        row_bytes = 8 * arch.layers * arch.kv_heads * arch.head_width * limit
        wave = max(1, CACHE_BYTES // (row_bytes * samples))
        waves = [_Wave(self, prompts[i:i + wave], samples, sampling, uniform[i * samples:(i + wave) * samples]).run()
                 for i in range(0, len(prompts), wave)]
        return Completions(*(torch.cat([getattr(w, f) for w in waves])
                             for f in ("tokens", "logp", "log_kept", "lengths", "finished")))


class _Wave:
    """One batch of rows from prefill to the last token."""

    def __init__(self, engine: EmbeddedEngine, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling,
                 uniform: Tensor) -> None:
        self.net, self.linear, self.engine = engine.net, engine.linear, engine
        self.prompts, self.samples, self.sampling, self.uniform = prompts, samples, sampling, uniform
        rows = len(prompts) * samples
        self.seen = F.pad(endings(prompts, sampling.memory).repeat_interleave(samples, 0), (0, sampling.max_new_tokens))
        self.tokens = self.seen[:, sampling.memory:]  # a view
        self.logp, self.log_kept = torch.zeros(2, rows, sampling.max_new_tokens)
        self.lengths = torch.full((rows,), sampling.max_new_tokens)
        self.finished = torch.zeros(rows, dtype=torch.bool)
        self.stop_tokens = torch.tensor(sampling.stop_tokens, dtype=torch.long)

    def run(self) -> Completions:
        hidden = self.prefill()
        live = torch.arange(len(self.tokens))  # rows still going
        slots = live  # where each of them sits in the cache
        logits = self.linear.logits(hidden)[live // self.samples]
        for t in range(self.sampling.max_new_tokens):
            before = self.seen[live, t : t + self.sampling.memory]
            token, logp, kept = draw(logits, self.uniform[live, t], self.sampling, before)
            self.tokens[live, t], self.logp[live, t], self.log_kept[live, t] = token, logp, kept
            stopped = self.stopped(live, token, t)
            self.lengths[live[stopped]] = t + 1
            self.finished[live[stopped]] = True
            live, slots, token = live[~stopped], slots[~stopped], token[~stopped]
            if not len(live) or t + 1 == self.sampling.max_new_tokens:
                break
            if len(live) <= DENSE * len(self.cache.bias):
                slots = self.pack(live, slots)
            logits = self.linear.logits(self.step(live, slots, token, t))
        return Completions(self.tokens, self.logp, self.log_kept, self.lengths, self.finished)

    def prefill(self) -> Tensor:
        """Fill the cache with all prompts, what they share once; hidden state of each one's last token, [P, d]."""
        prompts, shared = self.prompts, common_prefix(self.prompts)
        root, root_ids = build_level([prompts[0][:shared]], [0])
        level, ids = build_level([p[shared:] for p in prompts], [shared] * len(prompts))
        tree = Tree(torch.tensor(root_ids + ids), (root, level))
        layers: list[tuple[list[Tensor], list[Tensor]]] = []

        def keep(i: int, k: Tensor, v: Tensor) -> None:
            layers.append(tuple([lv.pad(part).transpose(1, 2).contiguous()  # type: ignore[arg-type]
                                 for lv, part in zip(tree.levels, x.split(tree.sizes), strict=True)] for x in (k, v)))

        hidden = self.net(tree, self.linear, keep)
        self.starts = torch.tensor([len(p) for p in prompts])
        rows, limit = len(self.tokens), self.sampling.max_new_tokens
        size = (rows, self.net.arch.kv_heads, limit, self.net.arch.head_width)
        own = [(layers[0][0][0].new_zeros(size), layers[0][0][0].new_zeros(size)) for _ in layers]
        bias = look_bias(torch.full((len(prompts), 1), self.net.arch.context), [root.positions, level.positions])
        bias = F.pad(bias, (0, limit)).repeat_interleave(self.samples, 0)
        positions = torch.cat([root.positions.expand(len(prompts), -1), level.positions,
                               self.starts[:, None] + torch.arange(limit)], 1).repeat_interleave(self.samples, 0)
        self.cache = Cache(layers, own, bias, positions)
        ends = torch.tensor([len(p) - shared for p in prompts]).cumsum(0) + len(root_ids) - 1
        last: Tensor = hidden[ends]
        return last

    def step(self, live: Tensor, slots: Tensor, token: Tensor, t: int) -> Tensor:
        """Hidden states [b, d] after feeding token t of the live rows."""
        net, cache = self.net, self.cache
        kv_heads, width, total = net.arch.kv_heads, net.arch.head_width, len(cache.bias)
        full = len(slots) == total
        keys_now = cache.bias.shape[-1] - self.sampling.max_new_tokens + t + 1
        bias = {reach: cache.near(keys_now, reach) for reach in net.arch.reaches}

        def attend_(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            own_k, own_v = cache.own[i]
            own_k[slots, :, t], own_v[slots, :, t] = k, v
            q = (q * width**-0.5).view(len(q), 1, kv_heads, -1, width)
            if not full:
                q = q.new_zeros(total, *q.shape[1:]).index_copy_(0, slots, q)
            keys, values = cache.shared[i]
            out = attend(q, [*keys, own_k[:, :, : t + 1]], [*values, own_v[:, :, : t + 1]], bias[net.arch.reach(i)])
            return out if full else out[slots]

        x = net.first(token)
        rotation = net.rotation(self.starts[live // self.samples] + t)
        for i in range(net.arch.layers):
            x = net.layer(i, x, rotation, attend_, self.linear)
        return net.last(x)

    def pack(self, live: Tensor, slots: Tensor) -> Tensor:
        """Rebuild the cache for the live rows: every prompt that has any keeps as many slots as the fullest one."""
        _, prompt, counts = (live // self.samples).unique(return_inverse=True, return_counts=True)
        deepest = int(counts.max())
        place = torch.arange(len(live)) - (counts.cumsum(0) - counts)[prompt]
        new: Tensor = prompt * deepest + place
        source = slots[torch.zeros(len(counts) * deepest, dtype=torch.long)]  # empty slots repeat some row, unread
        source[new] = slots
        per_prompt = len(self.cache.bias) // len(self.cache.shared[0][0][1])
        self.cache.keep((slots[new.argsort()] // per_prompt).unique_consecutive(), source)
        return new

    def stopped(self, live: Tensor, token: Tensor, t: int) -> Tensor:
        """[b] bool: rows that ended with this token."""
        stop = torch.isin(token, self.stop_tokens)
        for i in (~stop).nonzero()[:, 0].tolist() if self.sampling.stop_strings else ():
            text = self.engine.decode(self.tokens[live[i], : t + 1].tolist())
            stop[i] = any(s in text for s in self.sampling.stop_strings)
        return stop
