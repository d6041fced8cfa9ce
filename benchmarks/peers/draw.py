"""The random tensors that every library is given: ragged rows with holes, old and reference policies elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

SAMPLES = 5  # completions of each prompt
PROMPTS = 3
WIDTH = 9  # the longest completion drawn
CUT = 5  # this row was cut off, and nothing of it is learnt
HOLES = (2, 9)  # in these rows two tokens in the middle are a tool's answer
LIMIT = 256  # tokens that a completion was allowed


@dataclass(frozen=True)
class Draw:
    """B completions of 3 prompts, in float64; T is the width.

    present [B, T]: tokens that exist; mask [B, T]: those that the policy chose and learns from.
    logp, old, ref [B, T]: what the policy, the policy that sampled and the reference say; arbitrary where masked.
    reward [B]; group [B] long; value [B, T]: a critic's estimates.
    """

    present: Tensor
    mask: Tensor
    logp: Tensor
    old: Tensor
    ref: Tensor
    value: Tensor
    reward: Tensor
    group: Tensor
    seed: int
    samples: int = SAMPLES
    limit: int = LIMIT
    given: bool = False  # answers from a dataset, not samples

    def __len__(self) -> int:
        return len(self.mask)

    @property
    def lengths(self) -> list[int]:
        return [int(n) for n in self.present.sum(1)]

    def but(self, **changes: Any) -> Self:
        return replace(self, **changes)

    def rows(self, index: Sequence[int]) -> Self:
        """These rows only, in this order."""
        return replace(self, **{name: x[list(index)] for name, x in vars(self).items() if isinstance(x, Tensor)})

    def single(self) -> Self:
        """The same in fp32, as trainers hold rewards."""
        return replace(self, **{name: x.float() for name, x in vars(self).items()
                                if isinstance(x, Tensor) and x.is_floating_point()})

    def wider(self, columns: int) -> Self:
        """The same rows with that many columns of padding, which hold −3 where something must stand."""
        def wide(x: Tensor) -> Tensor:
            return torch.cat([x, x.new_full((len(x), columns), False if x.dtype == torch.bool else -3)], 1)

        return replace(self, **{name: wide(x) for name, x in vars(self).items()
                                if isinstance(x, Tensor) and x.dim() == 2})


def draw(seed: int, holes: bool = True, samples: int = SAMPLES) -> Draw:
    """Three prompts of as many completions each, the last with equal rewards; without `holes`, no tool answers."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    rows = PROMPTS * samples
    lengths = torch.randint(2, WIDTH + 1, (rows,), generator=generator)
    lengths[0] = WIDTH
    lengths[list(HOLES)] = lengths[list(HOLES)].clamp(min=5)
    present = torch.arange(WIDTH) < lengths[:, None]
    mask = present.clone()
    mask[CUT] = False
    if holes:
        for row in HOLES:
            mask[row, 1:3] = False
    group = torch.arange(PROMPTS).repeat_interleave(samples)
    reward = torch.where(group == PROMPTS - 1, 0.1, uniform(rows))
    old = -0.05 - 2.5 * uniform(rows, WIDTH)
    logp = (old + 0.35 * normal(rows, WIDTH)).clamp(max=-0.01)
    ref = (old + 0.35 * normal(rows, WIDTH)).clamp(max=-0.01)
    worst = int(reward[:samples].argmin())
    old[worst, 0], logp[worst, 0] = -3.0, -1.5  # a token of a bad answer that has become 4.5 times as likely
    return Draw(present, mask, logp, old, ref, normal(rows, WIDTH), reward, group, seed, samples)
