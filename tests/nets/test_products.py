"""Products of bf16 by the processor's tiles or pairs: exact where sums are, and the training pass's where not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from posttrain.nets import products as module
from posttrain.nets.kernels import Uncompiled
from posttrain.nets.products import Products, add_product, linear, products, tile_products


@pytest.fixture
def own() -> Products:
    found = products()
    if found is None:
        pytest.skip("this processor multiplies otherwise")
    return found


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def whole(*shape: int, seed: int) -> Tensor:
    """Numbers from −8 to 8, whose products and sums fp32 has exactly, in whatever order."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize("rows", [0, 1, 2, 12, 13, 25, 250])
@pytest.mark.parametrize("inputs", [2, 62, 1030])
@pytest.mark.parametrize("width", [1, 17, 32, 33, 100])
def test_sums_that_are_exact_are_rounded_once(own: Products, rows: int, inputs: int, width: int) -> None:
    """Rows by twelves and by 240, sums begun anew after 512 and 1024, outputs that fill no panel, with a bias."""
    x, w, bias = whole(rows, inputs, seed=0), whole(width, inputs, seed=1), whole(width, seed=2)
    exact = x.double() @ w.double().t()
    assert torch.equal(own.linear(x, own.lay_out(w), width), exact.bfloat16())
    assert torch.equal(own.linear(x, own.lay_out(w), width, bias), (exact + bias.double()).bfloat16())


@pytest.mark.parametrize("inputs", [64, 576, 1024, 1536, 2560])
def test_they_are_the_training_passs_to_the_last_bit(own: Products, inputs: int) -> None:
    """However many rows there are: that pass multiplies all of them at once."""
    x, w, bias = drawn(270, inputs, seed=0), drawn(96, inputs, seed=1), drawn(96, seed=2)
    laid, expected = own.lay_out(w), linear(x, w, bias)
    for rows in (1, 5, 32, 70, 270):
        assert torch.equal(own.linear(x[:rows], laid, 96, bias), expected[:rows])


@pytest.mark.parametrize(("rows", "inputs", "width"), [(0, 5, 3), (1, 1, 1), (33, 17, 31), (70, 96, 130),
                                                         (300, 40, 33)])
def test_gradients_of_weights_are_added_to_what_is_there(rows: int, inputs: int, width: int) -> None:
    """Exact sums, of rows that fill no tile; twice, on top of 0.5."""
    g, x, total = whole(rows, width, seed=0), whole(rows, inputs, seed=1), torch.full((width, inputs), 0.5)
    for _ in range(2):
        add_product(total, g, x)
    rounded = 0 if tile_products(g) else 2**-8  # torch's product is bf16
    assert_close(total.double(), 2 * (g.double().t() @ x.double()) + 0.5, rtol=rounded, atol=0)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("sink", [False, True])
def test_products_have_gradients(sink: bool, known: bool) -> None:
    """Exact ones: of y = x wᵀ + b with g, dx = g w, dw = gᵀ x, db = Σ g."""
    x, w, b, g = whole(20, 6, seed=0), whole(10, 6, seed=1), whole(10, seed=2), whole(20, 10, seed=3)
    expected = [g.double() @ w.double(), g.double().t() @ x.double(), g.double().sum(0)]
    y = (x.double() @ w.double().t() + b.double()).bfloat16()
    for leaf in (x, w, b):
        leaf.requires_grad_()
    if sink:
        w.main_grad = torch.zeros(w.shape)  # type: ignore[attr-defined]
    made = linear(x, w, b, y if known else None)
    assert torch.equal(made, y)
    made.backward(g)
    if sink and w.grad is None:
        assert_close(w.main_grad.double(), expected.pop(1), rtol=2**-8, atol=0)  # type: ignore[attr-defined]
        found = [x.grad, b.grad]
    else:
        found = [x.grad, w.grad, b.grad]
    for one, due in zip(found, expected, strict=True):
        assert one is not None and torch.equal(one, due.bfloat16())


def test_without_its_instructions_a_processor_keeps_to_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags in (frozenset[str](), frozenset({"avx512_bf16", "avx512bw"}), frozenset({"amx_bf16"})):
        monkeypatch.setattr(module, "cpu_flags", lambda flags=flags: flags)
        assert products.__wrapped__() is None


def test_where_tiles_do_not_compile_onednn_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise Uncompiled("no C compiler")

    for more in (set[str](), {"amx_bf16"}):
        monkeypatch.setattr(module, "cpu_flags", lambda more=more: {"avx512_bf16", "avx512bw", "avx512vl"} | more)
        monkeypatch.setattr(module, "built", fails)
        assert products.__wrapped__() is None
