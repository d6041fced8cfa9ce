"""A model of what is logged, stretch by stretch: it makes up further ones out of noise, and a policy may have its say.

Lu et al. 2023, 2303.06614; Jackson et al. 2024, 2404.06356.  The noise levels and the sampler are Karras et al.'s,
2206.00364.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from posttrain.data.dataset import Dataset
from posttrain.data.steps import Spaces
from posttrain.nets.denoiser import Denoiser
from posttrain.nets.edm import denoised
from posttrain.nets.mlp import Normalizer

BLOCKS = 3  # of the net
SIGMA = (0.002, 80.0)  # at the sampler's last step but one and at its first; Karras et al., as all that follows
RHO = 7.0  # how the levels crowd towards the least
CHURN, BETWEEN, SWELL = 80.0, (0.05, 50.0), 1.003  # fresh noise in all, at which levels, and its deviation
LOG_SIGMA = (-1.2, 1.2)  # mean and deviation of ln σ in training
Guide = Callable[[Tensor, Tensor, int], Tensor | None]


class MadeUp(NamedTuple):
    """n stretches of T steps."""

    obs: Tensor  # [n, T, obs]
    action: Tensor  # [n, T, A]
    reward: Tensor  # [n, T]
    next_obs: Tensor  # [n, T, obs]
    terminated: Tensor  # [n, T] bool


class StretchModel(nn.Module):
    """What T logged steps are, seen with noise: D numbers, of each step obs, action, reward and ending; last obs."""

    def __init__(self, spaces: Spaces, steps: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.spaces, self.steps = spaces, steps
        self.each = spaces.obs + spaces.action + 2  # numbers of a step
        self.body = Denoiser(steps * self.each + spaces.obs, 1, width, BLOCKS, generator)
        self.told = Normalizer(self.each)
        self.held_out: Tensor
        self.register_buffer("held_out", torch.tensor(math.nan))  # mean `surprise` of stretches that were left out

    @property
    def module(self) -> nn.Module:
        return self

    @property
    def fitted(self) -> bool:
        return bool(self.told.count > 0)

    def observe(self, dataset: Dataset) -> None:
        """Take its means and deviations for units."""
        self.told.observe(torch.cat([dataset.obs, dataset.action, dataset.reward[:, None],
                                     dataset.terminated[:, None].to(dataset.obs)], 1))

    # ------------------------------------------------------------------ numbers in units of the data

    def rows(self, dataset: Dataset, first: Tensor) -> Tensor:
        """The stretches that begin at these rows [n], [n, D] in units."""
        at = first[:, None] + torch.arange(self.steps)
        ended = dataset.terminated[at][..., None].to(dataset.obs)
        told = torch.cat([dataset.obs[at], dataset.action[at], dataset.reward[at][..., None], ended], -1)
        mean, std = self._units(told)
        last = dataset.next_obs[at[:, -1]]
        seen = slice(self.spaces.obs)
        return torch.cat([((told - mean) / std).flatten(1), (last - mean[seen]) / std[seen]], 1)

    def read(self, x: Tensor) -> MadeUp:
        """What rows [n, D] say; actions are cut off at ± 1."""
        steps, last = self._steps(x)
        mean, std = self._units(x)
        told, obs = steps * std + mean, self.spaces.obs
        end = (last * std[:obs] + mean[:obs])[:, None]
        return MadeUp(told[..., :obs], told[..., obs:-2].clamp(-1, 1), told[..., -2],
                      torch.cat([told[:, 1:, :obs], end], 1), told[..., -1] > 0.5)

    def _steps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[n, T, each] and [n, obs], which share memory with x."""
        cut = self.steps * self.each
        return x[:, :cut].view(len(x), self.steps, self.each), x[:, cut:]

    def _units(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of a step's numbers; 1 for a number that is always the same."""
        std = self.told.std.to(like)
        return self.told.mean.to(like), torch.where(std > 1e-8, std, 1.0)

    # ------------------------------------------------------------------ the denoiser

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """What is in x [n, D] under noise of deviation σ [n], [n, D]."""
        low, high = (math.log(s) / 4 for s in SIGMA)
        return denoised(lambda y, level: self.body(y, (level - low) / (high - low), torch.zeros_like(y[:, 0]).long()),
                        x, sigma, 1.0)

    def surprise(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(σ² + 1) / σ² (D(x + σ ε, σ) − x)² of each number on average, at a σ and an ε of each row: [n, D] -> [n]."""
        mean, std = LOG_SIGMA
        sigma = (mean + std * torch.randn(len(x), generator=generator, dtype=x.dtype)).exp()
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        error = self.denoise(x + sigma[:, None] * noise, sigma) - x
        return (sigma**2 + 1) / sigma**2 * (error**2).mean(1)

    @torch.no_grad()
    def sample(self, count: int, passes: int, generator: torch.Generator, guide: Guide | None = None) -> Tensor:
        """Rows [count, D] by `passes` second-order steps with fresh noise (Karras et al., algorithm 2).

        guide: what is added to actions [n, T, A] among what is seen [n, T, obs] before a pass, from 0, both as noisy as
        they are then; a gradient in the action, which is one in its unit by the chain rule.
        """
        dtype = self.body.into.dtype
        levels = noise_levels(passes, dtype)
        x = levels[0] * torch.randn(count, self.body.size, generator=generator, dtype=dtype)
        for i, (now, then) in enumerate(pairwise(levels)):
            if guide is not None:
                self._nudge(x, guide, i)
            grown = now * (1 + (min(CHURN / passes, math.sqrt(2) - 1) if BETWEEN[0] <= now <= BETWEEN[1] else 0.0))
            fresh = SWELL * torch.randn(x.shape, generator=generator, dtype=dtype)
            x = x + (grown**2 - now**2).sqrt() * fresh
            slope = (x - self.denoise(x, grown.expand(count))) / grown
            ahead = x + (then - grown) * slope
            if then > 0:
                slope = (slope + (ahead - self.denoise(ahead, then.expand(count))) / then) / 2
                ahead = x + (then - grown) * slope
            x = ahead
        return x

    def _nudge(self, x: Tensor, guide: Guide, taken: int) -> None:
        """Actions of x moved in place."""
        steps, _ = self._steps(x)
        mean, std = self._units(x)
        told, does = steps * std + mean, slice(self.spaces.obs, -2)
        towards = guide(told[..., :self.spaces.obs], told[..., does], taken)
        if towards is not None:
            steps[..., does] += std[does] * towards


def noise_levels(passes: int, dtype: torch.dtype) -> Tensor:
    """σ before each pass, falling, and 0 after the last: [passes + 1]."""
    low, high = (s ** (1 / RHO) for s in SIGMA)
    share = torch.arange(passes, dtype=dtype) / max(passes - 1, 1)
    return torch.cat([(high + share * (low - high)) ** RHO, share.new_zeros(1)])
