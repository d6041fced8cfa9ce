"""AdamW on a flat master copy against torch's own, step for step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from posttrain.train.optim import FlatAdamW, schedule


class Weights(nn.Module):
    """Two that are trained and one that is not."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.a = nn.Parameter(torch.randn(3, 4, generator=generator).to(dtype))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.b = nn.Parameter(torch.randn(5, generator=generator).to(dtype))


class One(nn.Module):
    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)


def losses(made: Weights, step: int) -> list[Tensor]:
    """Two micro-batches of a loss that bends, different at every step."""
    generator = torch.Generator().manual_seed(100 + step)
    x, y = torch.randn(2, 5, generator=generator).to(made.b.dtype)
    return [((made.a @ x[:4]).tanh().sum() + (made.b * x).sin().sum()) * 3,
            (made.b @ y) ** 2 + (made.a @ y[:4]).exp().sum()]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("max_norm", [0.5, 1e9])
def test_is_torch_s_adamw(max_norm: float, weight_decay: float) -> None:
    ours, theirs = Weights(), Weights()
    optimizer = FlatAdamW(ours, betas=(0.8, 0.9), weight_decay=weight_decay)
    reference = torch.optim.AdamW([theirs.a, theirs.b], betas=(0.8, 0.9), weight_decay=weight_decay, eps=1e-8)
    clipped = 0
    for step in range(8):
        lr = 0.1 / (step + 1)
        for loss in losses(ours, step):
            loss.backward()
        reference.zero_grad()
        for loss in losses(theirs, step):
            loss.backward()
        norm = optimizer.step(lr, max_norm)
        expected = float(nn.utils.clip_grad_norm_([theirs.a, theirs.b], max_norm))
        reference.param_groups[0]["lr"] = lr
        reference.step()
        clipped += expected > max_norm
        assert norm == pytest.approx(expected, rel=1e-5)
        assert_close(ours.a, theirs.a, rtol=1e-5, atol=1e-6)
        assert_close(ours.b, theirs.b, rtol=1e-5, atol=1e-6)
    assert clipped == (8 if max_norm == 0.5 else 0)
    assert ours.frozen.tolist() == [1, 1]


def test_first_step_by_hand() -> None:
    # m = (1 − β₁) g, v = (1 − β₂) g²; both corrected to g and g²; step = lr · g / (|g| + ε) = lr · sign(g).
    made = One(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = FlatAdamW(made)
    (made.w * torch.tensor([5.0, -0.25, 0.0])).sum().backward()
    assert optimizer.step(0.1, 1e9) == pytest.approx(math.sqrt(25 + 0.0625))
    assert_close(made.w.detach(), torch.tensor([0.9, -1.9, 3.0]))


def test_gradient_is_zero_after_a_step() -> None:
    made = Weights()
    optimizer = FlatAdamW(made)
    losses(made, 0)[0].backward()
    assert optimizer.gradient.norm() > 0
    optimizer.step(0.1, 1.0)
    assert (optimizer.gradient == 0).all()
    assert made.a.grad is not None
    assert (made.a.grad == 0).all()


def test_bf16_weights_follow_the_fp32_master() -> None:
    """Steps far below the spacing of bf16 add up in the master: 2⁻⁸ near 1, and 40 steps of 2⁻¹² make 2.5 of them."""
    made = One(torch.ones(3, dtype=torch.bfloat16))
    optimizer = FlatAdamW(made)
    assert optimizer.master.dtype == torch.float32
    for _ in range(40):
        made.w.float().sum().backward()
        optimizer.step(2.0**-12, 1e9)
        assert torch.equal(made.w.detach(), optimizer.master.to(torch.bfloat16))
    assert_close(optimizer.master, torch.full((3,), 1 - 40 * 2.0**-12))
    assert (made.w < 1).all()


def test_bf16_gradients_are_summed_in_fp32() -> None:
    # 256 + 8 · 0.5 = 260; in bf16, whose spacing there is 2, every 0.5 would be lost.
    made = One(torch.ones(1, dtype=torch.bfloat16))
    optimizer = FlatAdamW(made)
    (256 * made.w).sum().backward()
    for _ in range(8):
        (0.5 * made.w).sum().backward()
    assert made.w.grad is None
    assert optimizer.gradient.tolist() == [260]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float, dtype: torch.dtype) -> None:
    made = Weights(dtype)
    optimizer = FlatAdamW(made)
    losses(made, 0)[0].backward()
    optimizer.step(0.1, 1.0)
    before = {name: value.clone() for name, value in optimizer.state().items()}
    weights = [p.detach().clone() for p in made.parameters()]
    (bad * made.a).sum().backward()
    assert not math.isfinite(optimizer.step(0.1, 1.0))
    assert all(torch.equal(optimizer.state()[name], value) for name, value in before.items())
    assert all(map(torch.equal, made.parameters(), weights))
    assert (optimizer.gradient == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_state_round_trip(dtype: torch.dtype) -> None:
    made, again = Weights(dtype), Weights(dtype)
    first, second = FlatAdamW(made), FlatAdamW(again)
    for step in range(6):
        if step == 3:
            second.load({name: value.clone() for name, value in first.state().items()})
        for loss in losses(made, step):
            loss.backward()
        first.step(0.1, 1.0)
        if step >= 3:
            for loss in losses(again, step):
                loss.backward()
            second.step(0.1, 1.0)
    assert all(torch.equal(first.state()[name], second.state()[name]) for name in first.state())
    assert torch.equal(made.a, again.a)
    assert int(second.state()["steps"]) == 6


def test_schedule_linear() -> None:
    # Warm-up over 2 steps, then down over 10: after 5 of them a half; 10% at the end.
    at = schedule("linear", 2.0, 2, 12)
    assert [at(s) for s in (0, 1, 2, 7, 10)] == pytest.approx([1.0, 2.0, 2.0, 1.0, 0.4])
    assert at(11) == pytest.approx(0.2)


def test_schedule_cosine() -> None:
    # (1 + cos π/4) / 2 at a quarter, ½ at a half.
    at = schedule("cosine", 1.0, 0, 8)
    assert [at(s) for s in (0, 2, 4)] == pytest.approx([1.0, (1 + math.sqrt(0.5)) / 2, 0.5])
    assert at(7) == 0.1


def test_schedule_constant_and_long_warm_up() -> None:
    assert [schedule("constant", 0.3, 0, 5)(s) for s in range(5)] == [0.3] * 5
    assert schedule("constant", 1.0, 100, 10)(9) == pytest.approx(0.1)


def test_the_norm_of_many_numbers_loses_none() -> None:
    """2²⁶ times 0.1: √(2²⁶ · 0.01) = 819.2.  Added up in fp32, torch's own norm is 0.5% short of it;
    parts of 2¹⁵, whose sums round the same way 2¹⁵ times, are not by 10⁻⁵."""
    optimizer = FlatAdamW(One(torch.zeros(1 << 26)))
    optimizer.gradient.fill_(0.1)
    assert optimizer.step(0.0, 1e9) == pytest.approx(819.2, rel=1e-5)
