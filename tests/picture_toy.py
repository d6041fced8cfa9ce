"""Tiny real parts of pictures: random denoisers of 2×2 pictures, their own samples, updates through the real loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from toy import Recording

from posttrain.core import Groups, Method
from posttrain.core.seeds import derive
from posttrain.data.trajectories import Trajectories
from posttrain.nets.denoiser import Denoiser
from posttrain.nets.unet import UNetShape
from posttrain.policies.denoising import DenoisingPolicy, PictureValue
from posttrain.policies.digits import KINDS
from posttrain.policies.flow import FlowPolicy
from posttrain.policies.terrain import TerrainNet, TerrainPolicy
from posttrain.rollout.pictures import PictureSource
from posttrain.train import learner as train
from posttrain.train.loop import Pace
from posttrain.train.ranks import ALONE, Ranks

SPREAD = {"flow": 0.7, "diffusion": 1.0, "consistency": 1.0, "initial-noise": 0.0}
STEPS = 4


def toy_policy(kind: str = "flow", seed: int = 0, dtype: torch.dtype = torch.float64) -> DenoisingPolicy:
    """A denoiser of width 8 and one block, random in every weight, over 4 numbers and 3 labels; 4 steps."""
    generator = torch.Generator().manual_seed(derive(seed, "policy"))
    policy = KINDS[kind](Denoiser(4, 3, 8, 1, generator), STEPS, SPREAD[kind])
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return policy.to(dtype)


def toy_terrain(steps: int = STEPS) -> TerrainPolicy:
    """A random U-net of 4 and 8 channels over squares of 8 × 8, of difficulties 1 and 100."""
    shape = UNetShape(width=4, levels=(1, 2), blocks=1, attention=(1,), head=4)
    return TerrainPolicy(TerrainNet(8, (1, 100), shape, torch.Generator().manual_seed(0)), steps, 1.0)


def toy_pictures(kind: str = "flow", seed: int = 0, dtype: torch.dtype = torch.float64, drawn: str = "every",
                 prompts: int = 3, samples: int = 4) -> Groups:
    """Groups that the toy policy of that kind made, rewarded by the mean of each picture; of each, half are `given`."""
    source = PictureSource(toy_policy(kind, dtype=torch.float32), lambda picture, label: picture.mean(1), prompts,
                           samples, seed, drawn=drawn)
    batch = source.next(0)
    told: Any = batch.payload
    payload = replace(told, **{n: x.to(dtype) for n, x in vars(told).items() if x.is_floating_point()})
    return batch.replace(payload=payload, reward=batch.reward.to(dtype), logp_behaviour=batch.logp_behaviour.to(dtype),
                         extra={"given": torch.arange(len(batch)) % samples < samples // 2})


def toy_critic(steps: int, size: int = 4, labels: int = 3, dtype: torch.dtype = torch.float64) -> PictureValue:
    """Random in every weight: at 0 no gradient would reach the body."""
    generator = torch.Generator().manual_seed(4)
    critic = PictureValue(size, labels, steps, 8, generator)
    with torch.no_grad():
        for p in critic.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return critic.to(dtype)


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


def free_flow(first: float, second: float) -> FlowPolicy:
    """Two steps, a = 1, one pixel, v = `first` and then `second`.

    Step 0, at t = 1: μ = ½ x − ½ v, σ² Δ = 1.  Step 1, at t = ½: μ = ½ x − ¾ v, σ² Δ = ½.
    """
    net: Any = FreeNet(torch.tensor([first, second], dtype=torch.float64))
    return FlowPolicy(net, 2, 1.0)


def hand_pictures(reward: Sequence[float], mask: Sequence[Sequence[int]], group: Sequence[int] | None = None) -> Groups:
    """Rows of two steps of one pixel for a `free_flow`, odd rows alike and even rows alike.

    At v = 0 what was drawn lies ½ above and 1 above the means on even rows, ½ below and 0 above on odd ones; pictures
    are 1 and 3, and the frozen draws have τ = 1, ½ and ε = 2, 0, so ε − x_0 is 1, −1 on even rows and −1, −3 on odd.
    """
    rows = len(reward)
    f64 = torch.float64
    odd = torch.arange(rows) % 2
    state = torch.tensor([[2.0, 4.0]], dtype=f64).expand(rows, 2)
    after = torch.tensor([[1.5, 3.0], [0.5, 2.0]], dtype=f64)[odd]
    picture = torch.tensor([1.0, 3.0], dtype=f64)[odd]
    payload = Trajectories(state[..., None], after[..., None], torch.arange(2).expand(rows, 2),
                           torch.zeros(rows, dtype=torch.long), picture[:, None],
                           torch.tensor([[1.0, 0.5]], dtype=f64).expand(rows, 2),
                           torch.tensor([[2.0, 0.0]], dtype=f64).expand(rows, 2)[..., None])
    owned = torch.tensor(mask, dtype=torch.bool)
    return Groups(payload=payload, mask=owned, unit=torch.tensor(group or [0] * rows),
                  version=torch.zeros(owned.shape, dtype=torch.long), logp_behaviour=torch.zeros(rows, 2, dtype=f64),
                  reward=torch.tensor(reward, dtype=f64), finished=torch.ones(rows, dtype=torch.bool), limit=2)


class PictureLearner:
    """A method on a toy policy; every gradient is kept."""

    def __init__(self, method: Method[Any], policy: DenoisingPolicy, reference: DenoisingPolicy | None = None,
                 critic: Any = None) -> None:
        given: dict[str, Any] = {"policy": policy, "reference": reference or policy.initial(),
                                 "anchor": (reference or policy).initial()}
        if "critic" in method.needs:
            net = policy.net
            given["critic"] = critic or toy_critic(policy.steps, net.size, net.labels, next(net.parameters()).dtype)
        self.run = train.Learner(method, given, Recording)
        self.metrics: dict[str, float] = {}

    def update(self, batch: Groups, step: int = 0, lr: float = 1e-2, ranks: Ranks = ALONE) -> Groups:
        generator = torch.Generator().manual_seed(derive(step, "minibatches"))
        prepared, self.metrics, _ = self.run.update(batch, Pace(lr, 1e30), generator, ranks)
        return prepared

    @property
    def gradients(self) -> list[Tensor]:
        """Of the policy, each optimizer step's, flat."""
        optimizer = self.run.optimizers["policy"]
        assert isinstance(optimizer, Recording)
        return optimizer.gradients

    @property
    def gradient(self) -> Tensor:
        return self.gradients[0]

    @property
    def weights(self) -> Tensor:
        return self.run.optimizers["policy"].master
