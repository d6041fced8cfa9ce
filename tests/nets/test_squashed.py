"""A squashed Gaussian's draws by our own kernels: by hand, and against torch's operations in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from posttrain.nets import squashed as module
from posttrain.nets.squashed import compiled, draw, plain

BOUNDS = (-5.0, 2.0)


@pytest.fixture(autouse=True)
def kernels() -> None:
    if compiled() is None:
        pytest.skip("no C compiler here")


def normal(*shape: int, seed: int = 1, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(moments: Tensor, z: Tensor, weights: Tensor, own: bool, of: str = "both") -> list[Tensor]:
    """What is drawn, what is said of it, and the gradient of their weighted sum to the moments."""
    moments = moments.clone().requires_grad_()
    action, density = (draw if own else plain)(moments, z, BOUNDS)
    terms = {"action": (action * weights).sum(), "density": (density * weights[:, 0]).sum()}
    total = sum(terms.values()) if of == "both" else terms[of]
    assert isinstance(total, Tensor)
    return [action.detach(), density.detach(), torch.autograd.grad(total, moments)[0]]


def test_one_draw_by_hand() -> None:
    # s = 0: log σ = −5 + 3.5 = −1.5, σ = e^−1.5; μ = ½ ln 3, z = 0: u = μ, a = ½,
    #     log π = 1.5 − ½ ln 2π − ln(1 − ¼)
    # dlog π/du = 2a = 1, so dμ is 1; σ z = 0, so d log σ is −1, times 3.5 (1 − tanh² 0) = 3.5 it is ds = −3.5
    # da/dμ = 1 − a² = ¾, da/ds = ¾ σ z · 3.5 = 0
    moments, z = torch.tensor([[0.5 * math.log(3), 0.0]]), torch.zeros(1, 1)
    action, density, both = gradients(moments, z, torch.ones(1, 1), own=True)
    assert_close(action, torch.tensor([[0.5]]))
    assert_close(density, torch.tensor([1.5 - 0.5 * math.log(2 * math.pi) - math.log(0.75)]))
    assert_close(both, torch.tensor([[1.75, -3.5]]))


@settings(max_examples=60, deadline=None)
@given(rows=st.sampled_from([1, 2, 15, 16, 17, 300]), n=st.integers(1, 17), spread=st.sampled_from([0.01, 1.0, 8.0]),
       apart=st.booleans(), of=st.sampled_from(["both", "action", "density"]))
def test_values_and_gradients_are_those_of_torch_in_float64(rows: int, n: int, spread: float, apart: bool,
                                                            of: str) -> None:
    """Far out too, where 1 − a² is 0 in fp32 and its logarithm is not; noise whose rows lie apart, as a method has."""
    moments, weights = normal(rows, 2 * n, scale=spread), normal(rows, n, seed=3)
    z = normal(rows, 3, n, seed=2)[:, 1] if apart else normal(rows, n, seed=2)
    found = gradients(moments, z, weights, own=True, of=of)
    expected = gradients(moments.double(), z.double(), weights.double(), own=False, of=of)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours.double(), theirs, rtol=3e-5, atol=3e-5)
    with torch.no_grad():
        assert all(map(torch.equal, draw(moments, z, BOUNDS), found))


def test_a_row_says_the_same_in_whatever_company() -> None:
    moments, z = normal(300, 12, scale=2), normal(300, 6, seed=2)
    whole = draw(moments, z, BOUNDS)
    for first, count in ((0, 1), (5, 2), (7, 13), (100, 200)):
        part = draw(moments[first:first + count], z[first:first + count], BOUNDS)
        assert all(torch.equal(some, every[first:first + count]) for some, every in zip(part, whole, strict=True))


def test_what_is_not_a_number_is_not_hidden() -> None:
    moments = normal(20, 4)
    moments[3, 1], moments[5, 2] = float("nan"), float("nan")  # a mean and a spread
    action, density = draw(moments, normal(20, 2, seed=2), BOUNDS)
    assert action.isnan().any(1).nonzero()[:, 0].tolist() == [3, 5]
    assert density.isnan().nonzero()[:, 0].tolist() == [3, 5]


def test_a_gradient_has_a_gradient() -> None:
    moments, z = normal(20, 4).requires_grad_(), normal(20, 2, seed=2)
    found = []
    for make in (draw, plain):
        (slope,) = torch.autograd.grad(make(moments, z, BOUNDS)[1].sum(), moments, create_graph=True)
        found.append(torch.autograd.grad((slope**2).sum(), moments)[0])
    assert_close(*found, rtol=1e-4, atol=1e-5)


def test_derivatives_forwards_are_torchs() -> None:
    moments, z, v = normal(20, 4), normal(20, 2, seed=2), normal(20, 4, seed=3)
    for one in (0, 1):
        _, moved = torch.func.jvp(lambda x, one=one: draw(x, z, BOUNDS)[one], (moments,), (v,))
        (back,) = torch.autograd.grad(draw(leaf := moments.clone().requires_grad_(), z, BOUNDS)[one].sum(), leaf)
        assert_close(moved.sum(), (back * v).sum(), rtol=1e-4, atol=1e-4)


def test_shapes_that_torch_spreads_are_left_to_torch() -> None:
    """One row of moments for all noise; noise with a dimension before."""
    z = normal(3, 5, 2)
    for moments, noise in ((normal(1, 4), z[0]), (normal(5, 4), z)):
        for ours, theirs in zip(draw(moments, noise, BOUNDS), plain(moments, noise, BOUNDS), strict=True):
            assert torch.equal(ours, theirs)


def test_a_gradient_to_the_noise_is_not_lost() -> None:
    # s = 0: σ = e^−1.5, and μ = z = 0: da/dz = σ (1 − tanh² 0)
    z = torch.zeros(3, 2, requires_grad=True)
    (found,) = torch.autograd.grad(draw(torch.zeros(3, 4), z, BOUNDS)[0].sum(), z)
    assert_close(found, torch.full((3, 2), math.exp(-1.5)))


def test_without_a_compiler_torch_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    moments, z, weights = normal(20, 4), normal(20, 2, seed=2), normal(20, 2, seed=3)
    ours = gradients(moments, z, weights, own=True)
    monkeypatch.setattr(module, "compiled", lambda: None)
    for one, other in zip(ours, gradients(moments, z, weights, own=True), strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-5)
