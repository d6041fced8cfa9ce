"""A squashed Gaussian's draws and their log densities (Haarnoja et al. 2018, app. C):

    σ = e^( low + ½ (high − low) (tanh s + 1) ),   u = μ + σ z,   a = tanh u,   log π(a) = log N(u) − Σ log(1 − a²)

By squashed.c in one call each way, in fp32 on the processor; by torch's operations elsewhere.
"""

from __future__ import annotations

import math
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from posttrain.nets.kernels import at, built, function_of, gradients, or_none, simple

SOURCE = Path(__file__).with_name("squashed.c")
Range = tuple[float, float]
"""low and high, between which log σ lies."""


def draw(moments: Tensor, z: Tensor, bounds: Range) -> tuple[Tensor, Tensor]:
    """Moments [B, 2A], μ then s, and z [B, A] from N(0, 1) -> actions [B, A] in [−1, 1], and log π of each, [B]."""
    alike = moments.dim() == 2 and moments.shape == (len(z), 2 * z.shape[-1])
    own = compiled() if alike and z.dim() == 2 and simple(moments, z) and not z.requires_grad else None
    if own is None:
        return plain(moments, z, bounds)
    moments, z = moments.contiguous(), z if z.stride(1) == 1 else z.contiguous()
    if moments.requires_grad and torch.is_grad_enabled():
        drawn: tuple[Tensor, Tensor] = Draw.apply(moments, z, bounds, own)  # type: ignore[no-untyped-call]
        return drawn
    return own.draw(moments, z, bounds)[:2]


def plain(moments: Tensor, z: Tensor, bounds: Range) -> tuple[Tensor, Tensor]:
    """The same, by torch's operations; z may have dimensions before those of the moments."""
    mean, log_std = split(moments, bounds)
    u = mean + log_std.exp() * z
    return torch.tanh(u), log_density(u, z, log_std)


def split(moments: Tensor, bounds: Range) -> tuple[Tensor, Tensor]:
    """[..., 2A] -> μ and log σ, [..., A]."""
    mean, s = moments.chunk(2, -1)
    low, high = bounds
    return mean, low + 0.5 * (high - low) * (torch.tanh(s) + 1)


def log_density(u: Tensor, z: Tensor, log_std: Tensor) -> Tensor:
    """log π(tanh u) of u = μ + σ z, [B]; log(1 − tanh² u) = 2 (log 2 − u − softplus(−2u)), which does not overflow.

    F.softplus(u, −2) is −½ softplus(−2u).
    """
    each = 2 * torch.sub(u, F.softplus(u, -2), alpha=2) - 0.5 * (z * z) - log_std
    return each.sum(-1) - u.shape[-1] * (0.5 * math.log(2 * math.pi) + 2 * math.log(2))


class Kernels:
    """The functions of squashed.c."""

    def __init__(self) -> None:
        function = partial(function_of, built(SOURCE))
        self._draw, self._draw_back = function("draw", "nnppnffpppp"), function("draw_back", "nnpppppp")

    def draw(self, moments: Tensor, z: Tensor, bounds: Range) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Actions and log densities, and two [B, A] that `draw_back` asks for."""
        (rows, n), (low, high) = z.shape, bounds
        action, reach, bend = (torch.empty(rows, n) for _ in range(3))
        density = torch.empty(rows)
        self._draw(rows, n, moments.data_ptr(), z.data_ptr(), z.stride(0), low, 0.5 * (high - low), action.data_ptr(),
                   density.data_ptr(), reach.data_ptr(), bend.data_ptr())
        return action, density, reach, bend

    def draw_back(self, action: Tensor, reach: Tensor, bend: Tensor, *given: Tensor | None) -> Tensor:
        """The gradient at the moments, of those given at the actions and at the log densities."""
        to_moments = torch.empty(len(action), 2 * action.shape[1])
        given = tuple(g if g is None else g.contiguous() for g in given)
        self._draw_back(*action.shape, action.data_ptr(), reach.data_ptr(), bend.data_ptr(), *map(at, given),
                        to_moments.data_ptr())
        return to_moments


@cache
def compiled() -> Kernels | None:
    return or_none(Kernels)


class Draw(torch.autograd.Function):
    """Kernels.draw, with a gradient that may itself have one."""

    @staticmethod
    def forward(ctx: Any, moments: Tensor, z: Tensor, bounds: Range, own: Kernels) -> tuple[Tensor, Tensor]:
        action, density, ctx.reach, ctx.bend = own.draw(moments, z, bounds)
        ctx.save_for_backward(moments, z, action)
        ctx.set_materialize_grads(False)
        ctx.bounds, ctx.own = bounds, own
        return action, density

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        moments, z, action = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *gradients(plain(moments, z, ctx.bounds), given, [moments], [True]), None, None, None
        return ctx.own.draw_back(action, ctx.reach, ctx.bend, *given), None, None, None
