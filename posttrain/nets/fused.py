"""A layer's arithmetic with gradients where the kernels compile: one pass over memory where torch takes several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from posttrain.nets.kernels import Kernels
from posttrain.nets.precision import at_least_fp32

if TYPE_CHECKING:
    from posttrain.nets.transformer import Transformer
    from posttrain.nets.tree import Tree


class Fused:
    """An `Arithmetic` with gradients.  What it lacks a kernel for is the net's own."""

    def __init__(self, net: Transformer, kernels: Kernels) -> None:
        self.net, self.kernels, self.linear, self.add = net, kernels, net.linear, net.add

    def norm(self, x: Tensor, name: str) -> Tensor:
        if not self.net.has(name):
            return x
        arch = self.net.arch
        return _apply(Norm, x, self.net.weight(name), arch.norm_offset, arch.norm_epsilon, self.kernels)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, tree: Tree, reach: int | None = None) -> Tensor:
        """What `tree_attention` returns, and no score kept."""
        return _apply(Look, q, k, v, tree, tree.ranges(reach), self.kernels)

    def gate(self, x: Tensor) -> Tensor:
        return _apply(Gate, x, self.kernels)

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return _apply(Turn, x, cos, sin, self.kernels)


def _apply(function: type[torch.autograd.Function], *given: Any) -> Tensor:
    out: Tensor = function.apply(*given)
    return out


class Norm(torch.autograd.Function):
    """x [n, d] fp32 over its root mean square, times weight + offset [d] -> [n, d] of the weight's type."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, offset: float, epsilon: float, kernels: Kernels) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.offset, ctx.epsilon, ctx.kernels = offset, epsilon, kernels
        return kernels.norm(x, at_least_fp32(weight) + offset, epsilon, weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        w = at_least_fp32(weight) + ctx.offset
        dx, dw = ctx.kernels.norm_back(x, w, ctx.epsilon, g.contiguous())
        sink = getattr(weight, "main_grad", None)
        if sink is not None:
            sink += dw
        return dx, dw.to(weight.dtype) if sink is None else None, None, None, None


class Gate(torch.autograd.Function):
    """activation(a) b of x = [a, b] [n, 2 f] -> [n, f]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Kernels) -> Tensor:
        ctx.save_for_backward(x)
        ctx.kernels = kernels
        return kernels.gate(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.kernels.gate_back(x, g.contiguous()), None


class Turn(torch.autograd.Function):
    """x [n, heads, D] turned by cos and sin [n, 1, D / 2]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, kernels: Kernels) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.kernels = kernels
        return kernels.turn(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.kernels.turn(g.contiguous(), *ctx.saved_tensors, way=-1.0), None, None, None


class Look(torch.autograd.Function):
    """Tokens of a tree over those that they descend from: q [n, H, D], k, v [n, K, D] -> [n, H, D]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, tree: Tree, ranges: Tensor, kernels: Kernels) -> Tensor:
        q = q.contiguous()
        ctx.save_for_backward(q, k, v, ranges)
        ctx.sizes, ctx.kernels = tree.sizes, kernels
        return kernels.look(q, _stores(k, v, tree.sizes), ranges)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, ranges = ctx.saved_tensors
        return *ctx.kernels.look_back(q, _stores(k, v, ctx.sizes), ranges, g.contiguous()), None, None, None


def _stores(k: Tensor, v: Tensor, sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(k.split(sizes), v.split(sizes), strict=True))
