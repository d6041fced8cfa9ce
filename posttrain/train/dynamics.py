"""Fit a model of the environment to a dataset, before anything is learnt from what it imagines."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posttrain.core.seeds import derive
from posttrain.data.dataset import Dataset
from posttrain.policies.dynamics import Dynamics
from posttrain.train.config import ControlConfig
from posttrain.train.objective import counted
from posttrain.train.optim import FlatAdamW

LR, ROWS = 1e-3, 256  # of Adam; of a member's minibatch.  Janner et al. 2019's code
HELD_OUT = 0.1  # share of transitions that choose the best members
BOUND = 0.01  # weight of the bounds on log σ², which are to be as near to each other as they can


def fit(best: Dynamics, dataset: Dataset, members: int, updates: int, seed: int) -> None:
    """Let `best` be those of `members` that are nearest to held-out transitions.

    Each member has minibatches of its own.
    """
    generator = torch.Generator().manual_seed(derive(seed, "dynamics"))
    order = torch.randperm(len(dataset), generator=generator)
    held = max(1, round(HELD_OUT * len(dataset)))
    rest = order[held:] if len(order) > held else order
    several = Dynamics(best.spaces, members, best.body.weights[0].shape[-1], generator)
    several.observe(dataset.obs, dataset.reward, dataset.next_obs)
    optimizer = FlatAdamW(several, betas=(0.9, 0.999))
    for _ in range(updates):
        rows = rest[torch.randint(len(rest), (members, ROWS), generator=generator)]
        loss = several.surprise(*_columns(dataset, rows)).sum() + BOUND * (several.high - several.low).sum()
        loss.backward()
        optimizer.step(LR, math.inf)
    error = several.error(*_columns(dataset, order[:held])[:4])
    chosen = error.argsort()[:best.members]
    several.held_out.copy_(error[chosen].mean())
    best.take(several, chosen)


def told_of(dynamics: Dynamics, config: ControlConfig) -> str:
    """In words."""
    rollouts = f"; rollouts of {counted(config.imagined, 'step')} from logged states" if config.imagined else ""
    return (f"the best {config.model_elites} of {counted(config.model_members, 'network')} after "
            f"{counted(config.model_updates, 'update')}; they miss held-out transitions by "
            f"{float(dynamics.held_out):.2g} of their variance{rollouts}")


def _columns(dataset: Dataset, rows: Tensor) -> tuple[Tensor, ...]:
    return tuple(x[rows] for x in (dataset.obs, dataset.action, dataset.reward, dataset.next_obs, dataset.terminated))
