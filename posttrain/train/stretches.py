"""Fit a model of logged stretches to a dataset, before anything is learnt from what it makes up."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from posttrain.core import Method
from posttrain.core.errors import UserError
from posttrain.core.seeds import derive
from posttrain.data.dataset import Dataset
from posttrain.policies.stretches import StretchModel
from posttrain.train.config import ControlConfig
from posttrain.train.objective import counted, method_name
from posttrain.train.optim import FlatAdamW, schedule

LR, ROWS = 2e-3, 32  # of Adam; of a minibatch.  Jackson et al. 2024's code
HELD_OUT = 0.05  # share of stretches that say how good it is; there too


def fit(model: StretchModel, dataset: Dataset, updates: int, seed: int) -> None:
    """The seed alone decides what the model becomes."""
    generator = torch.Generator().manual_seed(derive(seed, "stretches"))
    first = starts(dataset, model.steps)
    order = first[torch.randperm(len(first), generator=generator)]
    held = max(1, round(HELD_OUT * len(order)))
    rest = order[held:] if len(order) > held else order
    fresh = StretchModel(model.spaces, model.steps, model.body.width, generator)
    fresh.observe(dataset)
    optimizer, lr = FlatAdamW(fresh, betas=(0.9, 0.999)), schedule("cosine", LR, updates // 10, updates)
    for update in range(updates):
        chosen = rest[torch.randint(len(rest), (ROWS,), generator=generator)]
        fresh.surprise(fresh.rows(dataset, chosen), generator).mean().backward()
        optimizer.step(lr(update), math.inf)
    with torch.no_grad():
        fresh.held_out.copy_(fresh.surprise(fresh.rows(dataset, order[:held]), generator).mean())
    model.load_state_dict(fresh.state_dict())


def starts(dataset: Dataset, steps: int) -> Tensor:
    """The rows after which, themselves included, an episode goes on for that many steps."""
    ahead = torch.arange(len(dataset) - steps + 1)
    return ahead[dataset.episode[ahead] == dataset.episode[ahead + steps - 1]]


def check_synthetic(method: Method[Any], config: ControlConfig, logged: Dataset | None) -> None:
    """
    Raises:
        UserError: on stretches that cannot be made up, or that nobody learns from.
    """
    steps = config.synthetic
    if not steps:
        return
    if logged is None:
        raise UserError(f"synthetic = {steps}: a model is fitted to logged transitions; give --dataset FOLDER")
    if config.imagined:
        raise UserError(f"synthetic = {steps}: the rest of a batch is what is imagined already; one of them must be 0")
    if round(config.dataset_share * config.batch_size) == config.batch_size:
        raise UserError(f"dataset_share = {config.dataset_share:g}: leaves no row of {config.batch_size} to what is "
                        "made up")
    if logged.spaces.numbered:
        raise UserError(f"synthetic = {steps}: the actions of {config.task!r} are numbered, and what is made up has "
                        "numbers in a range; must be 0")
    if config.span > 1:
        raise UserError(f"span = {config.span}: what is made up is of one action; must be 1")
    if method.learns_from != "transitions" or method.ahead:
        raise UserError(f"synthetic = {steps}: {method_name(method)} does not learn from single transitions; must be 0")
    if not len(starts(logged, steps)):
        raise UserError(f"synthetic = {steps}: the longest logged episode has "
                        f"{int(torch.bincount(logged.episode).max())} steps")


def told_of(model: StretchModel, config: ControlConfig) -> str:
    """In words."""
    return (f"{counted(config.synthetic_count, 'stretch', 'stretches')} of {counted(config.synthetic, 'step')} made "
            f"up, anew every {counted(config.synthetic_every, 'batch', 'batches')}, by a denoiser after "
            f"{counted(config.synthetic_updates, 'update')}, whose loss on held-out ones is "
            f"{float(model.held_out):.2g}")
