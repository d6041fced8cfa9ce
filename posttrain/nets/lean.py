"""Steps of a layer whose backward pass computes again what autograd would keep, a third of all activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Activation(NamedTuple):
    """A function of every number, and its gradient: of the output and the input -> of the input."""

    value: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


ACTIVATIONS: Mapping[str, Activation] = {
    "silu": Activation(F.silu, torch.ops.aten.silu_backward),
    "gelu_pytorch_tanh": Activation(partial(F.gelu, approximate="tanh"),
                                    partial(torch.ops.aten.gelu_backward, approximate="tanh"))}


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x / √(mean x² + ε) · weight over the last dimension: x [n, d], weight [d]."""
    out: Tensor = _RmsNorm.apply(x, weight, epsilon)  # type: ignore[no-untyped-call]
    return out


def gated(gate_up: Tensor, activation: str) -> Tensor:
    """activation(gate) · up: [n, 2 f] -> [n, f]."""
    out: Tensor = _Gated.apply(gate_up, ACTIVATIONS[activation])  # type: ignore[no-untyped-call]
    return out


class _RmsNorm(torch.autograd.Function):
    """Keeps x and one number for each row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        (g,) = grads
        own = g * x
        dw = own.t() @ scale[:, 0] if ctx.needs_input_grad[1] else None
        along = (own @ weight)[:, None] * scale.square() / x.shape[-1]  # dx = s (g w − x s² mean(g w x))
        return (g * weight).addcmul_(x, along, value=-1).mul_(scale), dw, None


class _Gated(torch.autograd.Function):
    """Keeps its input alone."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, activation: Activation) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        ctx.save_for_backward(gate_up)
        ctx.activation = activation
        return activation.value(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gate_up,), (g,) = ctx.saved_tensors, grads
        gate, up = gate_up.chunk(2, -1)
        return torch.cat([ctx.activation.backward(g * up, gate), g * ctx.activation.value(gate)], -1), None
