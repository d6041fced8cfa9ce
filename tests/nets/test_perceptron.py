"""Perceptrons of our own kernels: by hand, against torch's operations in float64, at every edge of their panels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from posttrain.nets import perceptron as module
from posttrain.nets.mlp import MLP, Ensemble
from posttrain.nets.perceptron import NUMBERS, Pairs, compiled, every_layer, plain, through

KINDS = [kind for kind in NUMBERS if kind]


@pytest.fixture(autouse=True)
def kernels() -> None:
    if compiled() is None:
        pytest.skip("no C compiler here")


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def made(sizes: list[int], members: int, seed: int = 0) -> Pairs:
    """Of one perceptron where there are 0 members."""
    drawn = torch.Generator().manual_seed(seed)
    several, one = ([members], [1]) if members else ([], [])
    return [(torch.randn(*several, a, b, generator=drawn) * a**-0.5, torch.randn(*several, *one, b, generator=drawn))
            for a, b in pairwise(sizes)]


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def learnt(x: Tensor, pairs: Pairs, weight: Tensor, activation: str, own: bool) -> list[Tensor]:
    """What is said, and the gradients of its sum times `weight` to x and to all parameters."""
    x = x.clone().requires_grad_()
    pairs = [(w.clone().requires_grad_(), b.clone().requires_grad_()) for w, b in pairs]
    said = (through if own else lambda *each: plain(*each)[-1])(x, pairs, activation)
    (said * weight.reshape(said.shape)).sum().backward()
    found = [said.detach().reshape(weight.shape)] + [p.grad for p in (x, *(p for pair in pairs for p in pair))]
    return [g for g in found if g is not None]


def test_two_layers_by_hand() -> None:
    # h = relu([1 2; 3 4]ᵀ x + [0, −4]),  y = [1, −1] · h + ½,  x = (1, 1):  W has inputs as rows, so
    #     h = relu(1 + 3, 2 + 4 − 4) = (4, 2),  y = 4 − 2 + ½ = 2.5
    # dy/dx_i = W_i0 − W_i1 = (−1, −1);  dy/dW = [1 −1; 1 −1];  dy/db = (1, −1);  dy/dv = h
    # x = (1, 0): h = relu(1, −2) = (1, 0), the second unit is off: dy/dx = (1, 3), dy/dW = [1 0; 0 0], dy/dv = (1, 0)
    w, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.0, -4.0])
    v, c = torch.tensor([[1.0], [-1.0]]), torch.tensor([0.5])
    said, dx, dw, db, dv, dc = learnt(torch.tensor([[1.0, 1.0], [1.0, 0.0]]), [(w, b), (v, c)], torch.ones(2, 1),
                                      "relu", own=True)
    assert said.tolist() == [[2.5], [1.5]]
    assert dx.tolist() == [[-1, -1], [1, 3]]
    assert dw.tolist() == [[2, -1], [1, -1]]
    assert db.tolist() == [2, -1]
    assert dv.tolist() == [[5], [2]]
    assert dc.tolist() == [2]


@settings(max_examples=60, deadline=None)
@given(rows=st.sampled_from([1, 2, 11, 12, 13, 40, 481, 700]), members=st.integers(0, 3), alike=st.booleans(),
       sizes=st.lists(st.sampled_from([1, 2, 7, 15, 16, 17, 31, 32, 33, 50, 65, 513]), min_size=2, max_size=4),
       activation=st.sampled_from(KINDS))
def test_values_and_gradients_are_those_of_torch_in_float64(rows: int, members: int, alike: bool, sizes: list[int],
                                                            activation: str) -> None:
    """Rows by twelves and beyond what a thread takes; sizes that fill panels and chunks, exceed them and are one."""
    shape = (rows, sizes[0]) if alike or not members else (members, rows, sizes[0])
    x, pairs, weight = normal(*shape), made(sizes, members), normal(max(members, 1), rows, sizes[-1], seed=2)
    found = learnt(x, pairs, weight, activation, own=True)
    expected = learnt(x.double(), [(w.double(), b.double()) for w, b in pairs], weight.double(), activation, own=False)
    for ours, theirs in zip(found, expected, strict=True):
        off = (ours.reshape(theirs.shape) - theirs).abs() / theirs.abs().max().clamp_min(1)
        assert (off.median() if activation == "relu" else off.max()) < 2e-5  # what is nearly off may be taken for off


@pytest.mark.parametrize("activation", KINDS)
def test_a_row_says_the_same_in_whatever_company(activation: str) -> None:
    net, x = MLP([17, 1100, 64, 6], activation, torch.Generator().manual_seed(3), 1.0), normal(600, 17)
    with torch.no_grad():
        whole = net(x)
        for first, count in ((0, 1), (5, 2), (7, 12), (100, 13), (300, 300)):
            assert torch.equal(net(x[first:first + count]), whole[first:first + count])


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("members", [1, 2, 4])
def test_threads_change_no_bit(members: int) -> None:
    """Fewer members than threads: each product is shared out; as many or more: the members are."""
    x, pairs, weight = normal(600, 70), made([70, 256, 256, 3], members), normal(members, 600, 3, seed=2)
    several = learnt(x, pairs, weight, "tanh", own=True)
    torch.set_num_threads(1)
    alone = learnt(x, pairs, weight, "tanh", own=True)
    assert all(map(torch.equal, several, alone))


def test_tanh_is_near_to_a_rounding_everywhere() -> None:
    """To 2e-6 of itself, however small it is."""
    x = torch.cat([torch.linspace(-20, 20, 4001), torch.logspace(-30, 0, 200), torch.tensor([0.0, 1e4, -1e4])])[:, None]
    pairs = [(torch.ones(1, 1), torch.zeros(1)), (torch.ones(1, 1), torch.zeros(1))]
    found = every_layer(x, pairs, "tanh")[0].reshape(-1).double()
    expected = x.double().tanh().reshape(-1)
    assert ((found - expected).abs() <= 2e-6 * expected.abs()).all()


@pytest.mark.parametrize("activation", KINDS)
def test_what_is_not_a_number_is_not_hidden(activation: str) -> None:
    """Neither in a row's result nor in the gradient to the weights; other rows keep theirs."""
    x = normal(20, 5)
    x[3, 2] = float("nan")
    said, dx, *rest = learnt(x, made([5, 33, 40, 2], 0), torch.ones(1, 20, 2), activation, own=True)
    assert said[0].isnan().any(1).tolist() == [row == 3 for row in range(20)]
    assert rest[0].isnan().any()
    assert not dx[4].isnan().any()


def test_a_gradient_has_a_gradient() -> None:
    """A penalty on the slope: d/dW of |dy/dx|², as torch's own operations have it."""
    pairs, x = made([5, 33, 1], 2), normal(20, 5).requires_grad_()
    found = []
    for say in (through, lambda *each: plain(*each)[-1]):
        each = [(w.clone().requires_grad_(), b.clone().requires_grad_()) for w, b in pairs]
        (slope,) = torch.autograd.grad(say(x, each, "tanh").sum(), x, create_graph=True)
        found.append(torch.autograd.grad((slope**2).sum(), [w for w, _ in each]))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 3), (20, 5), (3, 20, 4)])
def test_what_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    """Too few numbers of a row, too many, and rows for more members than there are."""
    with pytest.raises(RuntimeError):
        through(normal(*shape), made([4, 16, 1], 2), "tanh")


def test_derivatives_forwards_are_torchs() -> None:
    net, x, v = MLP([4, 16, 2], "tanh", torch.Generator().manual_seed(0), 1.0), normal(20, 4), normal(20, 4, seed=2)
    said, moved = torch.func.jvp(net, (x,), (v,))
    (back,) = torch.autograd.grad(net(leaf := x.clone().requires_grad_()).sum(), leaf)
    assert_close(said, net(x))
    assert_close(moved.sum(), (back * v).sum())


def test_what_is_held_fixed_gets_no_gradient() -> None:
    net, x = Ensemble(2, [4, 16, 1], "relu", torch.Generator().manual_seed(0)), normal(20, 4).requires_grad_()
    net.fixed(x).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in net.parameters())


def test_without_a_compiler_torch_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    q, (held, moved) = Ensemble(3, [6, 40, 40, 1], "elu", torch.Generator().manual_seed(0)), normal(30, 6).split(4, 1)
    found = []
    for each in (compiled(), None):
        monkeypatch.setattr(module, "compiled", lambda each=each: each)
        leaf = moved.clone().requires_grad_()
        least = q.least(held, leaf)
        least.sum().backward()
        found.append((q(torch.cat([held, moved], 1)), least, leaf.grad))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
