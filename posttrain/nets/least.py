"""The least of what an ensemble of perceptrons says, gone back through in the least one's layers alone.

    y = min_k Q_k(x),   dy/dx = dQ_j/dx,   j = argmin_k Q_k(x), the first of several

Each row has one j, so of K members' products on the way back a K-th remains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from posttrain.nets.perceptron import layers_of

Slope = Callable[[Tensor, Tensor], Tensor]
"""A gradient at what an activation said, and that -> the gradient at what it was told; all of one shape."""

SLOPES: Mapping[str, Slope] = {
    "relu": lambda g, y: torch.ops.aten.threshold_backward(g, y, 0),
    "tanh": lambda g, y: g * (1 - y * y),
    "elu": lambda g, y: g * (y.clamp(max=0) + 1)}


class Least(torch.autograd.Function):
    """The K values of every row -> the least of each, with gradient to some of what the perceptrons were told."""

    @staticmethod
    def forward(ctx: Any, moved: Tensor, said: Tensor, layers: Sequence[Tensor], weights: Sequence[Tensor],
                activation: str) -> Tensor:
        """
        Args:
            moved: [B, m], the last numbers of each row that was told.
            said: [K, B, 1].
            layers: what each hidden layer said, [K, B, width].
            weights: of each layer, [K, inputs, outputs]; the last one has one output.
            activation: one of SLOPES.
        """
        least, ctx.which = said[:, :, 0].min(0)
        ctx.layers, ctx.weights, ctx.activation, ctx.width = layers, weights, activation, moved.shape[1]
        return least

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if compiled := layers_of(ctx.activation, grad, ctx.weights[0]):
            g = grad.contiguous()
            return compiled.least_back(ctx.weights, ctx.activation, ctx.layers, ctx.which, g, ctx.width), *[None] * 4
        first, *later = ctx.weights
        moved = grad.new_empty(len(grad), ctx.width)
        counts = ctx.which.bincount(minlength=len(first)).tolist()
        for k, rows in enumerate(ctx.which.argsort(stable=True).split(counts)):
            g = grad.index_select(0, rows)[:, None]
            for y, w in zip(reversed(ctx.layers), reversed(later), strict=True):
                product = g * w[k].T if w.shape[2] == 1 else g @ w[k].T
                g = SLOPES[ctx.activation](product, y[k].index_select(0, rows))
            moved.index_copy_(0, rows, g @ first[k, -ctx.width:].T)
        return moved, None, None, None, None
