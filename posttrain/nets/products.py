"""Products of bf16 in C, where the processor has what they need: its tiles (products_amx.c), else its dot products of
pairs (products.c).  Elsewhere oneDNN's serve, by torch.

Each sum goes from its first number to its last however many rows there are, so what samples and what is learnt from
are the same numbers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from posttrain.nets.kernels import add_to, at, built, function_of, or_none
from posttrain.nets.precision import cpu_flags, has_tiles

SOURCE = Path(__file__).with_name("products.c")
AMX_SOURCE = Path(__file__).with_name("products_amx.c")
WIDE = 32  # outputs of a weight that lie side by side
SIDE = 16  # rows of a tile
STEP = 32  # numbers of a tile's row


class Products:
    """The functions of products.c, which give oneDNN's numbers.  Tensors are on the processor and of bf16, weights
    contiguous."""

    by = "AVX512's dot products of pairs"
    dtype = torch.bfloat16
    multiple = 2  # of which inputs must be: they are taken by pairs

    def __init__(self, library: ctypes.CDLL) -> None:
        function = partial(function_of, library)
        self._lay_out, self._multiply = function("lay_out", "nnpp"), function("multiply", "nnnppppp")
        self.address = ctypes.cast(library.multiply, ctypes.c_void_p).value or 0

    def lay_out(self, w: Tensor) -> Tensor:
        """w [out, in] as `linear` wants it: [at least out, in]."""
        width, inputs = w.shape
        laid = torch.empty(upwards(width, WIDE), inputs, dtype=w.dtype)
        self._lay_out(inputs, width, w.data_ptr(), laid.data_ptr())
        return laid

    def linear(self, x: Tensor, laid: Tensor, width: int, bias: Tensor | None = None) -> Tensor:
        """x wᵀ + bias of x [n, in] and w [width, in], which was laid out: [n, width]."""
        out, room = torch.empty(len(x), width, dtype=x.dtype), self.room(*x.shape)
        x = x.contiguous()
        self._multiply(*x.shape, width, x.data_ptr(), laid.data_ptr(), at(bias), at(room), out.data_ptr())
        return out

    def room(self, rows: int, inputs: int) -> Tensor | None:
        """What a product of so many rows needs beside its factors."""
        return None

    def agrees(self, inputs: int) -> bool:
        """Whether sums of so many numbers are oneDNN's to the last bit, on one draw."""
        x, w = torch.randn(2, 64, inputs, generator=torch.Generator().manual_seed(0)).bfloat16()
        return torch.equal(self.linear(x, self.lay_out(w), 64), F.linear(x, w))


class TileProducts(Products):
    """The functions of products_amx.c, which the training pass multiplies by too: oneDNN's sums of tiles depend on how
    many rows there are."""

    by, multiple = "tiles (AMX)", 1

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__(library)
        self._add_product = function_of(library, "add_product", "nnnppppp")

    def lay_out(self, w: Tensor) -> Tensor:
        """w [out, in] as `linear` wants it: [at least out, at least in]."""
        width, inputs = w.shape
        w, laid = w.contiguous(), tiles(width, inputs, WIDE)
        self._lay_out(inputs, width, w.data_ptr(), laid.data_ptr())
        return laid

    def room(self, rows: int, inputs: int) -> Tensor:
        return tiles(rows, inputs, SIDE)

    def add_product(self, total: Tensor, g: Tensor, x: Tensor) -> None:
        """total [out, in] fp32 += gᵀ x of g [n, out] and x [n, in]."""
        (n, width), inputs = g.shape, x.shape[1]
        g, x, room, room_x = g.contiguous(), x.contiguous(), tiles(width, n, SIDE), tiles(inputs, n, WIDE)
        self._add_product(n, inputs, width, g.data_ptr(), x.data_ptr(), room.data_ptr(), room_x.data_ptr(),
                          total.data_ptr())


def upwards(n: int, to: int) -> int:
    """n filled up to a multiple."""
    return -(-n // to) * to


def tiles(rows: int, inputs: int, side: int) -> Tensor:
    """Room for a left factor (SIDE), or for a right one (WIDE)."""
    return torch.empty(upwards(rows, side), upwards(inputs, STEP), dtype=torch.bfloat16)


@cache
def products() -> Products | None:
    """None where oneDNN's products serve: where these are not to be had, or oneDNN takes sums in another order where
    the training pass multiplies by it."""
    flags = cpu_flags()
    if not {"avx512_bf16", "avx512bw", "avx512vl"} <= flags:
        return None
    if has_tiles():
        return or_none(lambda: TileProducts(built(AMX_SOURCE)))
    found = or_none(lambda: Products(built(SOURCE)))
    return found if found is not None and all(map(found.agrees, (960, 1536))) else None


def products_for(*weights: Tensor) -> Products | None:
    """Those that multiply by all of these weights [out, in], if any do; for others nothing is compiled."""
    if any(w.dtype != torch.bfloat16 or w.device.type != "cpu" for w in weights):
        return None
    found = products()
    return found if found is not None and all(w.shape[1] % found.multiple == 0 for w in weights) else None


def tile_products(w: Tensor) -> TileProducts | None:
    """Those that multiply by a weight [out, in] in the training pass, if any do."""
    found = products_for(w)
    return found if isinstance(found, TileProducts) else None


def linear(x: Tensor, w: Tensor, bias: Tensor | None = None, known: Tensor | None = None) -> Tensor:
    """x wᵀ + bias of x [n, in], w [out, in] -> [n, out] with gradients; known: what it is, where that was computed."""
    if known is None and tile_products(w) is None:
        return F.linear(x, w, bias)
    y: Tensor = _Linear.apply(x, w, bias, known)  # type: ignore[no-untyped-call]
    return y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, known: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, w)
        return multiplier(w)(x, bias=bias) if known is None else known

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        dx = g @ w if ctx.needs_input_grad[0] else None
        sink, dw = getattr(w, "main_grad", None), None
        if ctx.needs_input_grad[1]:
            if sink is not None:
                add_product(sink, g, x)
            else:
                dw = g.t() @ x
        return dx, dw, g.sum(0) if ctx.needs_input_grad[2] else None, None


def multiplier(w: Tensor) -> Callable[..., Tensor]:
    """What gives x wᵀ, or x wᵀ + bias of x and a bias, as what samples does: [n, in] -> [n, out], without gradients."""
    own = tile_products(w)
    if own is None:
        return lambda x, bias=None: F.linear(x, w, bias)
    return partial(own.linear, laid=own.lay_out(w), width=len(w))


def add_product(total: Tensor, g: Tensor, x: Tensor) -> None:
    """total [out, in] += gᵀ x of g [n, out] and x [n, in], in one pass where types agree or tiles multiply."""
    if total.dtype == g.dtype:
        total.addmm_(g.t(), x)
    elif total.dtype == torch.float32 and total.is_contiguous() and (own := tile_products(g)) is not None:
        own.add_product(total, g, x)
    else:
        add_to(total, g.t() @ x)
