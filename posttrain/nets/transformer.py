"""A decoder-only transformer over token trees: the same layer trains, prefills and decodes.

What differs between the three is how a layer attends and with what it computes; both are passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from posttrain.nets.architecture import Architecture, Rope
from posttrain.nets.fused import Fused
from posttrain.nets.head import embed
from posttrain.nets.hf_weights import part_sizes
from posttrain.nets.kernels import kernels_for
from posttrain.nets.precision import at_least_fp32
from posttrain.nets.products import linear
from posttrain.nets.trace import Recall, Recalling, Trace
from posttrain.nets.tree import Tree, attend

Attend = Callable[[int, Tensor], Tensor]  # layer, queries, keys and values [n, (H + 2 K) D] -> [n, H D]
Heads = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # layer, q [n, H, D], k and v [n, K, D] -> [n, H, D]
TreeAttention = Callable[[Tensor, Tensor, Tensor, Tree, int | None], Tensor]  # as `tree_attention`
Rotation = Sequence[tuple[Tensor, Tensor] | None]  # of some tokens, for each layer: cos and sin, [n, 1, D / 2] each

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu, "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh")}


class Arithmetic(Protocol):
    """What a layer computes with; a weight goes by its name.  The residual stream x stays fp32."""

    def norm(self, x: Tensor, name: str) -> Tensor:
        """x [n, d] as it enters a product."""
        ...

    def linear(self, x: Tensor, name: str) -> Tensor:
        """[n, in] -> [n, out]."""
        ...

    def gate(self, x: Tensor) -> Tensor:
        """The MLP's gate and up, [n, 2 f] -> [n, f]."""
        ...

    def add(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        """x and what a layer adds to it, y [n, d], after the norm of that name; x may be overwritten."""
        ...

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotary positions (Su et al., 2104.09864): x [n, heads, D]; cos, sin [n, 1, D / 2]."""
        ...


class Transformer(nn.Module):
    """Weights under short names (`0.qkv`, `0.gate_up`, `embed`), fused so that a layer needs four products."""

    def __init__(self, arch: Architecture, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.arch = arch
        self.names = list(weights)
        self.weights = nn.ParameterList([nn.Parameter(w) for w in weights.values()])
        self._index = {name: i for i, name in enumerate(self.names)}
        self.trace: Trace | None = None  # of what was sampled with these weights
        self.lora, self.lora_scale, self.lora_on = nn.ModuleDict(), 0.0, True
        # Layers beyond this are computed again in the backward pass; AdamW takes 16 bytes of each weight.
        self.activation_bytes = max(1 << 30, 16 * sum(w.numel() for w in self.weights))
        ropes = [arch.rope(i) for i in range(arch.layers)]
        distinct = [rope for rope in dict.fromkeys(ropes) if rope is not None]
        self.rope_of = [None if rope is None else distinct.index(rope) for rope in ropes]  # each layer's row below
        frequencies = torch.zeros(len(distinct), arch.head_width // 2, dtype=torch.float64)
        for row, rope in zip(frequencies, distinct, strict=True):
            row.copy_(turns(rope, arch.head_width))
        angles = torch.arange(arch.context, dtype=torch.float64)[:, None] * frequencies[:, None]
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", angles.cos().float(), persistent=False)  # [ropes, context, D / 2]
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def weight(self, name: str) -> Tensor:
        parameter: Tensor = self.weights[self._index[name]]
        return parameter

    def has(self, name: str) -> bool:
        return name in self._index

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        return zip(self.names, self.weights, strict=True)

    def add_lora(self, rank: int, alpha: float, generator: torch.Generator) -> None:
        """Freeze every weight and add adapters W + (α / rank) B A to the layers' products (Hu et al., 2106.09685).

        Fused weights get one pair per Hugging Face projection, so that the adapters are peft's.
        """
        self.requires_grad_(False)
        self.lora_scale = alpha / rank
        for name, w in list(self.named_weights()):
            if w.dim() != 2 or name in ("embed", "head"):
                continue
            sizes = part_sizes(self.arch, name)
            bound = w.shape[1] ** -0.5  # peft's: kaiming-uniform with a = √5
            a = (torch.rand(len(sizes) * rank, w.shape[1], generator=generator) * 2 - 1) * bound
            pair = (a, torch.zeros(w.shape[0], rank))
            self.lora[name.replace(".", "_")] = nn.ParameterList([x.to(w.device) for x in pair])

    def adapter(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """(A [rank, in], B [out, rank]) of every projection fused in this weight; empty without adapters."""
        if not self.lora_on or name.replace(".", "_") not in self.lora:
            return []
        pair = self.lora[name.replace(".", "_")]
        assert isinstance(pair, nn.ParameterList)
        sizes = part_sizes(self.arch, name)
        return list(zip(pair[0].chunk(len(sizes)), pair[1].split(sizes), strict=True))

    def merged(self, name: str) -> Tensor:
        """The weight with its adapters folded in."""
        w, pairs = self.weight(name), self.adapter(name)
        return w + self.lora_scale * torch.cat([b @ a for a, b in pairs]).to(w.dtype) if pairs else w

    @contextmanager
    def without_lora(self) -> Iterator[None]:
        """The model as it was before training, at no cost in memory."""
        self.lora_on = False
        try:
            yield
        finally:
            self.lora_on = True

    @property
    def head(self) -> Tensor:
        """[V, d]."""
        return self.weight("embed" if self.arch.tied else "head")

    def linear(self, x: Tensor, name: str) -> Tensor:
        w, pairs = self.weight(name), self.adapter(name)
        y = linear(x.to(w.dtype), w, self.weight(f"{name}_bias") if self.has(f"{name}_bias") else None)
        if pairs:
            y = y + self.lora_scale * torch.cat([at_least_fp32(x) @ a.t() @ b.t() for a, b in pairs], -1).to(y.dtype)
        return y

    def norm(self, x: Tensor, name: str) -> Tensor:
        """RMS norm in fp32 of x [n, …] over as many of its last numbers as there are weights; x where there are none.

        The residual stream stays fp32 whatever the weights are.
        """
        if not self.has(name):
            return x
        w = at_least_fp32(self.weight(name))
        if self.arch.norm_offset:
            w = w + self.arch.norm_offset
        x = at_least_fp32(x)
        if len(w) != x.shape[-1]:  # all heads at once
            return F.rms_norm(x.flatten(1), w.shape, w, self.arch.norm_epsilon).view(x.shape)
        return F.rms_norm(x, w.shape, w, self.arch.norm_epsilon)

    def gate(self, x: Tensor) -> Tensor:
        gate, up = x.chunk(2, -1)
        return ACTIVATIONS[self.arch.activation](gate) * up

    def add(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        return x.add(self.norm(y, name), alpha=self.arch.residual_scale)

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Halves are paired, as Hugging Face does."""
        a, b = at_least_fp32(x).chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)

    @property
    def attention(self) -> TreeAttention:
        return attention_on(self.head.device)

    @property
    def arithmetic(self) -> Transformer | Fused:
        """The fastest with gradients for the weights as they are."""
        kernels = kernels_for(self.arch, self.head.dtype, self.head.device)
        return self if kernels is None else Fused(self, kernels)

    def rotation(self, positions: Tensor) -> Rotation:
        """How each layer turns tokens at these positions [n]; None: not at all."""
        tables = [(at_least_fp32(cos[positions])[:, None], at_least_fp32(sin[positions])[:, None])
                  for cos, sin in zip(self.cos, self.sin, strict=True)]
        return [None if row is None else tables[row] for row in self.rope_of]

    def first(self, ids: Tensor) -> Tensor:
        """The residual stream before the layers, [n, d] fp32."""
        w = self.weight("embed")
        x = embed(ids, w)
        if self.arch.embed_scale != 1.0:
            x = x * x.new_full((), self.arch.embed_scale)  # rounded as x is
        return at_least_fp32(x)

    def body(self, ids: Tensor, attend_: Attend, by: Arithmetic) -> Tensor:
        """The residual stream after the layers, [n, d]; all activations are kept where a gradient is."""
        x = self.first(ids)
        for i in range(self.arch.layers):
            x = self.layer(i, x, attend_, by)
        return x

    def last(self, x: Tensor) -> Tensor:
        """The residual stream after the layers -> hidden states, whose products with the head are logits."""
        x = self.norm(x, "norm")
        return x if self.arch.logit_scale == 1.0 else x * self.arch.logit_scale

    def layer(self, i: int, x: Tensor, attend_: Attend, by: Arithmetic) -> Tensor:
        """One block: residual stream [n, d] fp32 -> [n, d].  A norm that this architecture has not changes nothing."""
        qkv = by.linear(by.norm(x, f"{i}.norm"), f"{i}.qkv")
        x = by.add(x, by.linear(attend_(i, qkv), f"{i}.o"), f"{i}.o_norm")
        gate_up = by.linear(by.norm(x, f"{i}.mlp_norm"), f"{i}.gate_up")
        return by.add(x, by.linear(by.gate(gate_up), f"{i}.down"), f"{i}.down_norm")

    def turned(self, positions: Tensor, look: Heads, by: Arithmetic) -> Attend:
        """Attention that sees queries and keys normed and turned as tokens at these positions [n] are."""
        arch, rotation = self.arch, self.rotation(positions)

        def attend_(i: int, qkv: Tensor) -> Tensor:
            q, k, v = qkv.view(len(qkv), -1, arch.head_width).split([arch.heads, arch.kv_heads, arch.kv_heads], 1)
            q, k = self.norm(q, f"{i}.q_norm").to(v.dtype), self.norm(k, f"{i}.k_norm").to(v.dtype)
            if (turn := rotation[i]) is not None:
                q, k = by.turn(q, *turn), by.turn(k, *turn)
            if arch.query_scale != 1.0:
                q = q * arch.query_scale
            return look(i, q, k, v).reshape(len(qkv), -1)

        return attend_

    def recall(self, tree: Tree) -> Recall | None:
        """Where the trace has a tree's tokens, if it has them all."""
        return None if self.trace is None else self.trace.find(tree)

    def forward(self, tree: Tree, known: Recall | None = None) -> Tensor:
        """Hidden states of all packed tokens, [n, d] fp32, after the last norm.

        known: what `recall` found of it; these products are not computed.
        """
        def look(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(q, k, v, tree, self.arch.reach(i))

        own = self.arithmetic
        attention = own.attention
        by: Arithmetic = own if known is None else Recalling(own, known)
        x, attend_ = self.first(tree.ids), self.turned(tree.positions, look, by)
        kept = self.activation_bytes // layer_bytes(self.arch, tree, self.head.element_size(),
                                                    scores=attention is tree_attention)
        for i in range(self.arch.layers):
            given = (i, x, attend_, by)
            if i < kept or not torch.is_grad_enabled():
                x = self.layer(*given)
            else:
                x = checkpoint(self.layer, *given, use_reentrant=False, preserve_rng_state=False)
        return self.last(x)


def layer_bytes(arch: Architecture, tree: Tree, width: int, scores: bool = True) -> int:
    """What the backward pass keeps of one layer, about; width: bytes of a compute weight.

    Of each token the residual stream twice and both norms in fp32; what enters each product, q, k and v, the MLP's gate
    and up; of each query and key the score in fp32 and as a weight, where `scores` are kept.
    """
    attention = 2 * (arch.heads + arch.kv_heads) * arch.head_width
    stream = 16 * arch.width + width * (2 * arch.width + attention + 4 * arch.hidden)
    looks = sum(bias.shape[0] * bias.shape[2] * bias.shape[4] for bias in tree.biases()) if scores else 0
    return len(tree.ids) * stream + looks * arch.heads * (4 + width)


def turns(rope: Rope, width: int) -> Tensor:
    """Radians that each pair of a head's numbers turns from one token to the next, [width / 2] fp64."""
    own = rope.theta ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    spared = ((rope.original * own / (2 * math.pi) - rope.low) / (rope.high - rope.low)).clamp(0, 1)
    return own * (spared + (1 - spared) / rope.factor)


def attention_on(device: torch.device) -> TreeAttention:
    """One fused kernel on CUDA; on processors, where that has no backward pass, `tree_attention`."""
    if device.type != "cuda":
        return tree_attention
    from posttrain.nets.flex import flex_tree_attention

    return flex_tree_attention


def tree_attention(q: Tensor, k: Tensor, v: Tensor, tree: Tree, reach: int | None = None) -> Tensor:
    """Every packed token attends to its ancestors and its own past: q [n, H, D], k, v [n, K, D] -> [n, H, D].

    reach: how many tokens it sees, itself included; None: all.
    """
    kv_heads, width = k.shape[1:]
    q = (q * width**-0.5).view(len(q), kv_heads, -1, width)
    keys, values, outputs = [], [], []
    for level, bias, q_l, k_l, v_l in zip(tree.levels, tree.biases(reach), *(x.split(tree.sizes) for x in (q, k, v)),
                                          strict=True):
        keys.append(level.pad(k_l).transpose(1, 2))
        values.append(level.pad(v_l).transpose(1, 2))
        outputs.append(level.unpad(attend(level.pad(q_l), keys, values, bias)))
    return torch.cat(outputs).view(len(q), -1, width)
