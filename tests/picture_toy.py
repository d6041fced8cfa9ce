"""Tiny real parts of pictures: random denoisers of 2×2 pictures, their own samples, updates through the real loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from toy import Recording

from posttrain.core import Groups, Method
from posttrain.core.seeds import derive
from posttrain.nets.denoiser import Denoiser
from posttrain.policies.denoising import DenoisingPolicy
from posttrain.policies.digits import KINDS
from posttrain.rollout.pictures import PictureSource
from posttrain.train import learner as train
from posttrain.train.loop import Pace
from posttrain.train.ranks import ALONE, Ranks

SPREAD = {"flow": 0.7, "diffusion": 1.0}
STEPS = 4


def toy_policy(kind: str = "flow", seed: int = 0, dtype: torch.dtype = torch.float64) -> DenoisingPolicy:
    """A denoiser of width 8 and one block, random in every weight, over 4 numbers and 3 labels; 4 steps."""
    generator = torch.Generator().manual_seed(derive(seed, "policy"))
    policy = KINDS[kind](Denoiser(4, 3, 8, 1, generator), STEPS, SPREAD[kind])
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return policy.to(dtype)


def toy_pictures(kind: str = "flow", seed: int = 0, dtype: torch.dtype = torch.float64, drawn: str = "every",
                 prompts: int = 3, samples: int = 4) -> Groups:
    """Groups that the toy policy of that kind made, rewarded by the mean of each picture."""
    source = PictureSource(toy_policy(kind, dtype=torch.float32), lambda picture, label: picture.mean(1), prompts,
                           samples, seed, drawn=drawn)
    batch = source.next(0)
    told: Any = batch.payload
    payload = replace(told, **{n: x.to(dtype) for n, x in vars(told).items() if x.is_floating_point()})
    return batch.replace(payload=payload, reward=batch.reward.to(dtype), logp_behaviour=batch.logp_behaviour.to(dtype))


class FreeNet(nn.Module):
    """Says one free number of each of S steps, whatever it is shown: what a loss does can be worked by hand."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)
        self.size, self.labels = 1, 1

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """t of step k is 1 − k / S."""
        step = ((1 - t) * len(self.values)).round().long().clamp(max=len(self.values) - 1)
        return self.values[step][:, None].expand_as(x)


class PictureLearner:
    """A method on a toy policy; every gradient is kept."""

    def __init__(self, method: Method[Any], policy: DenoisingPolicy, reference: DenoisingPolicy | None = None) -> None:
        given = {"policy": policy, "reference": reference or policy.initial(), "anchor": policy.initial()}
        self.run = train.Learner(method, given, Recording)
        self.metrics: dict[str, float] = {}

    def update(self, batch: Groups, step: int = 0, lr: float = 1e-2, ranks: Ranks = ALONE) -> Groups:
        generator = torch.Generator().manual_seed(derive(step, "minibatches"))
        prepared, self.metrics, _ = self.run.update(batch, Pace(lr, 1e30), generator, ranks)
        return prepared

    @property
    def gradients(self) -> list[Tensor]:
        optimizer = self.run.optimizers["policy"]
        assert isinstance(optimizer, Recording)
        return optimizer.gradients

    @property
    def gradient(self) -> Tensor:
        return self.gradients[0]

    @property
    def weights(self) -> Tensor:
        return self.run.optimizers["policy"].master
