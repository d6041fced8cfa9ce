"""perceptron.c, compiled for this processor when it is first wanted; where it cannot be, torch's own operations serve.

All layers are one call, forwards and backwards: products, biases, activations and their slopes.  In fp32 on the
processor; and a row's numbers are the same in whatever company it comes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from posttrain.nets.kernels import at, built, function_of, gradients, or_none, simple

SOURCE = Path(__file__).with_name("perceptron.c")
NUMBERS = {"": 0, "relu": 1, "tanh": 2, "elu": 3}  # of the activations that perceptron.c knows
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # in place: half of what a hidden layer writes, and no backward
    "tanh": torch.tanh_, "relu": torch.relu_, "elu": F.elu_, "silu": F.silu}  # pass misses what was there but silu's

Pairs = Sequence[tuple[Tensor, Tensor]]
"""Weights [K, in, out] and biases [K, 1, out] of each layer; or, of one perceptron, [in, out] and [out]."""


class Layers:
    """The functions of perceptron.c.  Tensors are contiguous, on the processor and fp32; x [rows, in], or one
    [K, rows, in] of each member."""

    def __init__(self, library: ctypes.CDLL) -> None:
        function = partial(function_of, library)
        self._forward, self._backward = function("forward", "nnnppnppnp"), function("backward", "nnnppnpnppppp")
        self._least_back = function("least_back", "nnnppnpppnp")

    def forward(self, x: Tensor, pairs: Pairs, activation: str) -> list[Tensor]:
        """What every layer says, [K, rows, out]; all but the last through the activation."""
        members, sizes = shape(pairs)
        said = [torch.empty(members, x.shape[-2], n) for n in sizes[1:]]
        weights, biases = lies(pairs)
        self._forward(members, x.shape[-2], len(pairs), numbers(sizes), x.data_ptr(), apart(x), weights, biases,
                      NUMBERS[activation], lie(said))
        return said

    def backward(self, x: Tensor, pairs: Pairs, activation: str, hidden: Sequence[Tensor], g: Tensor, to_x: bool,
                 to_weights: bool) -> tuple[Tensor | None, list[Tensor | None]]:
        """Gradients to x, [K, rows, in], and to weight, bias, weight, …, where wanted; g is that at what was said."""
        members, sizes = shape(pairs)
        dx = torch.empty(members, x.shape[-2], sizes[0]) if to_x else None
        found = [torch.empty_like(p) if to_weights else None for p in chain(*pairs)]
        self._backward(members, x.shape[-2], len(pairs), numbers(sizes), x.data_ptr(), apart(x), lies(pairs)[0],
                       NUMBERS[activation], lie(hidden), g.data_ptr(), lie(found[::2]), lie(found[1::2]), at(dx))
        return dx, found

    def least_back(self, weights: Sequence[Tensor], activation: str, hidden: Sequence[Tensor], which: Tensor, g: Tensor,
                   moved: int) -> Tensor:
        """g [rows] gone back, of each row through the member which[row], to the last `moved` numbers of x."""
        dx, sizes = torch.empty(len(g), moved), [*(w.shape[1] for w in weights), 1]
        self._least_back(len(weights[0]), len(g), len(weights), numbers(sizes), lie(weights), NUMBERS[activation],
                         lie(hidden), which.data_ptr(), g.data_ptr(), moved, dx.data_ptr())
        return dx


def shape(pairs: Pairs) -> tuple[int, list[int]]:
    """How many members there are, and the sizes of what each layer is told and the last one says."""
    assert all(p.is_contiguous() for p in chain(*pairs))
    first = pairs[0][0]
    return len(first) if first.dim() == 3 else 1, [first.shape[-2], *(w.shape[-1] for w, _ in pairs)]


def numbers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def lie(tensors: Iterable[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    """Where each of these lies."""
    where = [at(x) for x in tensors]
    return (ctypes.c_void_p * len(where))(*where)


def lies(pairs: Pairs) -> tuple[ctypes.Array[ctypes.c_void_p], ...]:
    """Where the weights lie, and the biases."""
    return tuple(map(lie, zip(*pairs, strict=True)))


def apart(x: Tensor) -> int:
    """How far what members are told lies apart: 0 where all are told the same."""
    return x.shape[1] * x.shape[2] if x.dim() == 3 else 0


def through(x: Tensor, pairs: Pairs, activation: str) -> Tensor:
    """What perceptrons say of x [rows, in], or of one [K, rows, in] of each: [K, rows, out]."""
    layers = layers_for(x, pairs[0][0], activation)
    if layers is None:
        return plain(x, pairs, activation)[-1]
    if torch.is_grad_enabled():
        said: Tensor = Stack.apply(x, layers, activation, *chain(*pairs))  # type: ignore[no-untyped-call]
        return said
    return layers.forward(x.contiguous(), pairs, activation)[-1]


def every_layer(x: Tensor, pairs: Pairs, activation: str) -> list[Tensor]:
    """What each layer says, without gradient."""
    with torch.no_grad():
        layers = layers_for(x, pairs[0][0], activation)
        return layers.forward(x.contiguous(), pairs, activation) if layers else plain(x, pairs, activation)


def plain(x: Tensor, pairs: Pairs, activation: str) -> list[Tensor]:
    """What each layer says, by torch's operations."""
    said = []
    for i, (w, b) in enumerate(pairs):
        y = linear(x, w, b)
        said.append(x := y if i + 1 == len(pairs) else ACTIVATIONS[activation](y))
    return said


def linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """One layer's product; of w [K, in, out] that of each member."""
    if w.dim() == 2:
        return F.linear(x, w.T, b)
    y = x if x.dim() == 3 else x.expand(len(w), *x.shape)
    if w.shape[-1] > 1:
        return torch.baddbmm(b, y, w)
    return (y * w.transpose(1, 2)).sum(-1, keepdim=True) + b  # a product with one column takes ten times as long


def layers_for(x: Tensor, w: Tensor, activation: str) -> Layers | None:
    """None where torch's own operations must serve, or say what is wrong with x."""
    fits = x.shape[-1] == w.shape[-2] and (x.dim() == 2 or len(x) == len(w))
    return layers_of(activation, x, w) if fits else None


def layers_of(activation: str, *tensors: Tensor) -> Layers | None:
    """None where they do not take such tensors."""
    return compiled() if activation in NUMBERS and simple(*tensors) else None


@cache
def compiled() -> Layers | None:
    return or_none(lambda: Layers(built(SOURCE)))


class Stack(torch.autograd.Function):
    """Perceptrons from end to end."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: Layers, activation: str, *parameters: Tensor) -> Tensor:
        *ctx.hidden, last = layers.forward(x.contiguous(), by_layer(parameters), activation)
        ctx.layers, ctx.activation = layers, activation
        ctx.save_for_backward(x, *parameters)
        return last

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        pairs, needed = by_layer(parameters), [ctx.needs_input_grad[0], *ctx.needs_input_grad[3:]]
        if torch.is_grad_enabled():  # the gradient is to have a gradient itself
            said = plain(x, pairs, ctx.activation)[-1]
            to_x, *rest = gradients([said], [grad], [x, *parameters], needed)
            return to_x, None, None, *rest
        to_x, rest = ctx.layers.backward(x.contiguous(), pairs, ctx.activation, ctx.hidden, grad.contiguous(),
                                         needed[0], any(needed[1:]))
        return to_x if to_x is None else to_x.sum_to_size(x.shape), None, None, *rest


def by_layer(parameters: Sequence[Tensor]) -> Pairs:
    """Of weight, bias, weight, bias, …"""
    return list(zip(parameters[::2], parameters[1::2], strict=True))
