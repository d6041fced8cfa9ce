"""Hand-written backward passes against autograd's through the formula, and that they keep no more than they say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from posttrain.nets.lean import ACTIVATIONS, gated, rms_norm

EPSILON = 0.1  # large enough that forgetting it shows


def inputs(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def gradients(out: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)
    return torch.autograd.grad((weight * out).sum(), of)


def kept(compute: Callable[[], Tensor], *given: Tensor) -> int:
    """Numbers that the backward pass keeps beside what it was given."""
    known, others = {x.data_ptr() for x in given}, dict[int, int]()

    def see(x: Tensor) -> Tensor:
        if x.data_ptr() not in known:
            others[x.data_ptr()] = x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(see, lambda x: x):
        out = compute()
    assert out.requires_grad
    return sum(others.values())


def test_rms_norm() -> None:
    x, w = inputs((5, 8), (8,))
    expected = x / (x.square().mean(-1, keepdim=True) + EPSILON).sqrt() * w
    assert_close(rms_norm(x, w, EPSILON), expected)
    assert_close(gradients(rms_norm(x, w, EPSILON), x, w), gradients(expected, x, w))
    assert kept(lambda: rms_norm(x, w, EPSILON), x, w) == 5  # one for each row


def test_rms_norm_by_hand() -> None:
    # mean x² = (9 + 16) / 2 = 12.5; with ε = 3.5 the root is 4: 3 / 4 · 8 and 4 / 4 · 2.
    assert rms_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([8.0, 2.0]), 3.5).tolist() == [[6.0, 2.0]]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gated(name: str) -> None:
    (x,) = inputs((4, 6))
    gate, up = x.chunk(2, -1)
    expected = {"silu": gate * gate.sigmoid(), "gelu_pytorch_tanh": F.gelu(gate, approximate="tanh")}[name] * up
    assert_close(gated(x, name), expected)
    assert_close(gradients(gated(x, name), x), gradients(expected, x))
    assert kept(lambda: gated(x, name), x) == 0
