"""All layers of a step in one call, where everything in them compiles: hundreds of small ones cost as much again as
what few rows compute."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from posttrain.nets.kernels import Kernels, at
from posttrain.nets.products import Products
from posttrain.nets.trace import PRODUCTS, Trace
from posttrain.nets.transformer import Rotation, Transformer
from posttrain.rollout.cache import Cache

NORMS = ("norm", "q_norm", "k_norm", "o_norm", "mlp_norm", "down_norm")  # in the order of layers.c


class Layers:
    """Of a net with its present weights: the same numbers as one after the other, to the last bit."""

    def __init__(self, net: Transformer, kernels: Kernels, products: Products, laid: Mapping[str, Tensor],
                 scales: Mapping[str, Tensor]) -> None:
        """laid: weights of products as those want them; scales: of norms, fp32; both by name."""
        self.arch, self.kernels, self.products = net.arch, kernels, products
        self.ropes = [net.rope_of.index(rope) for rope in range(len(net.cos))]  # a layer of each
        self.held = {**laid, **scales, **{n: w for n, w in net.named_weights() if n.endswith("_bias")}}
        self.weights = torch.tensor([
            [*(at(self.held.get(f"{i}.{name}")) or 0 for name in (*NORMS, *PRODUCTS, *map("{}_bias".format, PRODUCTS))),
             -1 if rope is None else rope, net.arch.reach(i) or 0] for i, rope in enumerate(net.rope_of)])
        norm = scales.get("0.q_norm")
        self.across = norm is not None and len(norm) != net.arch.head_width
        self.sizes = [len(net.weight(f"0.{name}")) for name in PRODUCTS]

    def __call__(self, x: Tensor, rotation: Rotation, cache: Cache, place: Tensor, start: Tensor, drawn: Tensor,
                 trace: Trace | None) -> Tensor:
        """The residual stream x [b, d] before the layers, which may be overwritten -> after them; see `Kernels.attend`.

        Products are left in the trace, those of as many layers as it keeps.
        """
        layers, traced = self.arch.layers, 0 if trace is None else trace.layers
        said = [torch.empty(min(traced + 1, layers), len(x), size, dtype=self.products.dtype) for size in self.sizes]
        turns = [turn for turn in map(rotation.__getitem__, self.ropes) if turn is not None]
        self.kernels.layers(self.arch, self.weights, cache.where, self.products, x, self.across, turns,
                            (cache.shape.shared, cache.shape.rest, cache.shape.limit), place, start, drawn, said,
                            traced)
        if trace is not None:
            trace.note_layers(dict(zip(PRODUCTS, said, strict=True)))
        return x
