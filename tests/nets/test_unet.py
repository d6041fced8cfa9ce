"""The parts of a U-net against their formulas, and that what goes down comes up again."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.nets.unet import Attention, ResBlock, UNet, UNetShape, waves

TINY = UNetShape(width=4, levels=(1, 2), blocks=2, attention=(1,), head=4)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_noise_level_is_told_in_waves() -> None:
    # Width 4: angles 1000 · 0.002 · (1, 10000^−½) = 2, 0.02; cosines first.
    assert waves(torch.tensor([0.002], dtype=torch.float64), 4)[0].tolist() == pytest.approx(
        [math.cos(2), math.cos(0.02), math.sin(2), math.sin(0.02)])


def test_a_block_by_hand() -> None:
    """One channel of two numbers, 0 and 2: normalised −1 and 1 (ε aside), first and second only pass on, a = 1, b = 3.

    silu(−1), silu(1) = −1 s, 1 − s with s = 1 − 1 / (1 + e⁻¹) = 0.268941, 1 apart, so they normalise to −1 and 1 again;
    (1 + a) · ∓1 + b = 1 and 5, and x + silu of that is 0 + 0.731059 and 2 + 5 · 0.993307 = 6.966535.
    """
    block = ResBlock(1, 1, 1).double()
    with torch.no_grad():
        for conv in (block.first, block.second):
            conv.weight.zero_()[0, 0, 1, 1] = 1
            conv.bias.zero_()
        block.tell.weight.zero_()
        block.tell.bias.copy_(torch.tensor([1.0, 3.0]))
    out = block(torch.tensor([[[[0.0, 2.0]]]], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    assert out.flatten().tolist() == pytest.approx([0.731059, 6.966535], abs=2e-3)  # ε = 1e-5 of a variance of ¼


@pytest.mark.parametrize(("scale", "expected"), [
    (0.5, [[2.5], [6.5]]), (1.0, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]),
    (2.0, [[x, x, x + 1, x + 1] for x in (1.0, 1.0, 3.0, 3.0, 5.0, 5.0, 7.0, 7.0)])])
def test_a_block_that_adds_nothing_only_resizes(scale: float, expected: list[list[float]]) -> None:
    block = ResBlock(1, 1, 1, scale)
    with torch.no_grad():
        block.second.weight.zero_()
        block.second.bias.zero_()
        assert block(torch.arange(1.0, 9.0).view(1, 1, 4, 2), torch.zeros(1, 1))[0, 0].tolist() == expected


def test_attention_is_the_softmax_of_products() -> None:
    """Two heads of three channels over four places, written out one pair at a time."""
    part, x = Attention(6, 3).double(), drawn(1, 6, 2, 2)
    q, k, v = part.qkv(part.norm(x)).view(3, 6, 4)
    expected = torch.zeros(6, 4, dtype=torch.float64)
    for head in (slice(0, 3), slice(3, 6)):
        for here in range(4):
            weight = torch.stack([(q[head, here] * k[head, there]).sum() / math.sqrt(3) for there in range(4)]).exp()
            expected[head, here] = (weight / weight.sum() * v[head]).sum(1)
    wanted = x + part.out(expected.view(1, 6, 2, 2))
    torch.testing.assert_close(part(x, x), wanted, rtol=1e-12, atol=1e-12)


def test_every_weight_counts_and_the_same_seed_gives_the_same_net() -> None:
    net = UNet(TINY, torch.Generator().manual_seed(0)).double()
    out = net(drawn(2, 1, 8, 8), torch.tensor([0.1, 0.5]).double(), torch.tensor([0.0, 1.0]).double())
    assert out.shape == (2, 1, 8, 8)
    out.square().sum().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    again, other = (UNet(TINY, torch.Generator().manual_seed(seed)).double() for seed in (0, 1))
    x = drawn(1, 1, 8, 8), torch.tensor([0.1]).double(), torch.tensor([0.0]).double()
    assert torch.equal(net(*x), again(*x))
    assert not torch.allclose(net(*x), other(*x))
