"""A small denoiser: what a noisy picture is made of, given how noisy it is and what it should show."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FREQUENCIES = 16  # of the noise level, from π to 2^5 π


class Denoiser(nn.Module):
    """x [n, D], t [n] in [0, 1], label [n] long -> [n, D]: residual blocks, each told the time and the label."""

    def __init__(self, size: int, labels: int, width: int, blocks: int, generator: torch.Generator,
                 outputs: int = 0) -> None:
        """Weights are normal with variance 1 / inputs; the last layer and each block's second are 0.

        outputs: numbers that it says of each picture; 0: as many as the picture has.
        """
        super().__init__()
        self.size, self.labels, self.width, self.blocks = size, labels, width, blocks
        outputs = outputs or size

        def normal(outputs: int, inputs: int) -> nn.Parameter:
            scale: float = inputs**-0.5
            return nn.Parameter(scale * torch.randn(outputs, inputs, generator=generator))

        self.into, self.into_bias = normal(width, size), nn.Parameter(torch.zeros(width))
        self.time, self.label = normal(width, 2 * FREQUENCIES), nn.Parameter(normal(width, labels).T.contiguous())
        self.told = nn.ParameterList(normal(width, width) for _ in range(blocks))
        self.first = nn.ParameterList(normal(width, width) for _ in range(blocks))
        self.second = nn.ParameterList(nn.Parameter(torch.zeros(width, width)) for _ in range(blocks))
        self.out, self.out_bias = nn.Parameter(torch.zeros(outputs, width)), nn.Parameter(torch.zeros(outputs))

    def sizes(self) -> dict[str, int]:
        """What another of this shape is made from."""
        return {"size": self.size, "labels": self.labels, "width": self.width, "blocks": self.blocks}

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        angle = t[:, None] * (math.pi * 2 ** torch.linspace(0, 5, FREQUENCIES, dtype=t.dtype))
        told = F.silu(F.linear(torch.cat([angle.sin(), angle.cos()], 1), self.time) + self.label[label])
        h = F.linear(x, self.into, self.into_bias)
        for tell, first, second in zip(self.told, self.first, self.second, strict=True):
            inner = F.silu(F.linear(F.layer_norm(h, (self.width,)), first) + F.linear(told, tell))
            h = h + F.linear(inner, second)
        return F.linear(F.silu(F.layer_norm(h, (self.width,))), self.out, self.out_bias)


class Classifier(nn.Module):
    """x [n, D] -> logits [n, labels]: one hidden layer."""

    def __init__(self, size: int, labels: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = nn.Parameter(torch.randn(width, size, generator=generator) * math.sqrt(2 / size))
        self.hidden_bias = nn.Parameter(torch.zeros(width))
        self.out, self.out_bias = nn.Parameter(torch.zeros(labels, width)), nn.Parameter(torch.zeros(labels))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(F.linear(x, self.hidden, self.hidden_bias)), self.out, self.out_bias)
