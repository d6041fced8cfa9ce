"""A convolutional U-net told a noise level and a condition, as the image models of Dhariwal & Nichol (2105.05233) are.

    h  = x + conv( silu( norm(c) (1 + a) + b ) ),  c = conv(silu(norm(x))),  a, b = linear(silu(told))     a block
    h  = x + out( softmax(qᵀk / √d) v )                                                                     attention

Each level has `blocks` of these on the way down, its last block halves the sides, and on the way up each takes what
came by at its height beside what comes from below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32  # of channels that are normalised together, and no more than there are channels
LONGEST = 10_000  # period of the slowest wave that a noise level is told by


@dataclass(frozen=True)
class UNetShape:
    """Of a net for one channel."""

    width: int  # channels of the first level, a multiple of GROUPS or below it; a level is told by four times it
    levels: tuple[int, ...]  # channels of each level, widths
    blocks: int  # of each level on the way down; one more on the way up
    attention: tuple[int, ...]  # levels whose blocks attend
    head: int  # channels of a head, which divide those of each level that attends


class ResBlock(nn.Module):
    """x [n, C, H, W], told [n, T] -> [n, C', H, W], with sides times `scale` where that is not 1."""

    def __init__(self, inputs: int, outputs: int, told: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.before, self.first = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.tell = nn.Linear(told, 2 * outputs)
        self.between, self.second = norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        inner = self.first(self._resized(F.silu(self.before(x))))
        scale, shift = self.tell(F.silu(told))[..., None, None].chunk(2, 1)
        inner = self.second(F.silu(self.between(inner) * (1 + scale) + shift))
        out: Tensor = self.skip(self._resized(x)) + inner
        return out

    def _resized(self, x: Tensor) -> Tensor:
        if self.scale < 1:
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.scale > 1 else x


class Attention(nn.Module):
    """Every place of x [n, C, H, W] sees every other."""

    def __init__(self, channels: int, head: int) -> None:
        super().__init__()
        self.head, self.norm = head, norm(channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        n, channels, *sides = x.shape
        parts = self.qkv(self.norm(x)).view(n, 3, channels // self.head, self.head, math.prod(sides))
        q, k, v = parts.transpose(3, 4).contiguous().unbind(1)  # rows of a head's numbers, as the fast kernel wants
        seen = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(n, channels, *sides)
        out: Tensor = x + self.out(seen)
        return out


class UNet(nn.Module):
    """x [n, 1, H, W], noise level [n], condition [n] -> [n, 1, H, W]; sides are multiples of 2^(levels − 1)."""

    def __init__(self, shape: UNetShape, generator: torch.Generator) -> None:
        """Weights are normal with variance 1 / inputs; norms begin as they are, biases at 0."""
        super().__init__()
        self.shape = shape
        with torch.device("meta"):  # so that nothing is drawn from torch's own generator
            self._build()
        self.to_empty(device="cpu")
        with torch.no_grad():
            for p in self.parameters():
                p.zero_()
                if p.dim() > 1:
                    p.copy_(torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5)
            for part in self.modules():
                if isinstance(part, nn.GroupNorm):
                    part.weight.fill_(1)

    def _build(self) -> None:
        shape, told = self.shape, 4 * self.shape.width
        channels = [width * shape.width for width in shape.levels]

        def level(i: int, inputs: int) -> list[nn.Module]:
            attends = [Attention(channels[i], shape.head)] if i in shape.attention else []
            return [ResBlock(inputs, channels[i], told), *attends]

        self.when = nn.Sequential(nn.Linear(shape.width, told), nn.SiLU(), nn.Linear(told, told))
        self.what = nn.Sequential(nn.Linear(1, told), nn.SiLU(), nn.Linear(told, told))
        self.into = nn.Conv2d(1, shape.width, 3, padding=1)
        down, passed = list[list[nn.Module]](), [shape.width]
        for i, width in enumerate(channels):
            for _ in range(shape.blocks):
                down.append(level(i, passed[-1]))
                passed.append(width)
            if i + 1 < len(channels):
                down.append([ResBlock(width, width, told, 0.5)])
                passed.append(width)
        deepest = channels[-1]
        self.down = nn.ModuleList(map(nn.ModuleList, down))
        self.middle = nn.ModuleList([ResBlock(deepest, deepest, told), Attention(deepest, shape.head),
                                     ResBlock(deepest, deepest, told)])
        up, here = [], deepest
        for i in reversed(range(len(channels))):
            for last in [False] * shape.blocks + [True]:
                up.append(level(i, here + passed.pop()))
                here = channels[i]
                if last and i:
                    up[-1].append(ResBlock(here, here, told, 2.0))
        self.up = nn.ModuleList(map(nn.ModuleList, up))
        self.last = nn.Sequential(norm(here), nn.SiLU(), nn.Conv2d(here, 1, 3, padding=1))

    def forward(self, x: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        told = self.when(waves(level, self.shape.width)) + self.what(condition[:, None])
        passed = [self.into(x)]
        for block in self.down:
            passed.append(through(block, passed[-1], told))
        h = through(self.middle, passed[-1], told)
        for block in self.up:
            h = through(block, torch.cat([h, passed.pop()], 1), told)
        out: Tensor = self.last(h)
        return out


def through(parts: nn.Module, x: Tensor, told: Tensor) -> Tensor:
    assert isinstance(parts, nn.ModuleList)
    for part in parts:
        x = part(x, told)
    return x


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(GROUPS, channels), channels)


def waves(level: Tensor, width: int) -> Tensor:
    """cos and sin of 1000 times a level [n], at periods from 2π to 2π LONGEST, [n, width]."""
    half = width // 2
    angle = 1000 * level[:, None] * torch.exp(-math.log(LONGEST) * torch.arange(half).to(level) / half)
    return torch.cat([angle.cos(), angle.sin()], 1)
