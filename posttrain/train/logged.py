"""What control makes of a dataset beside drawing from it: a search, a model, a return to ask for; or why it cannot."""

from __future__ import annotations

from typing import Any

import torch

from posttrain.core import Curriculum, EpisodeCurriculum, Method, catalog
from posttrain.core.errors import UserError
from posttrain.data.dataset import Dataset
from posttrain.data.nearest import Logged
from posttrain.nets.mlp import Normalizer
from posttrain.policies.dynamics import Dynamics
from posttrain.policies.sequence import Sequence
from posttrain.train.config import ControlConfig


def episode_curriculum(curriculum: Curriculum | None, config: ControlConfig) -> EpisodeCurriculum | None:
    """
    Raises:
        UserError: where nothing is logged, or the curriculum is of another kind.
    """
    curriculum = curriculum or (catalog.make_curriculum(config.curriculum) if config.curriculum else None)
    if curriculum is not None and not isinstance(curriculum, EpisodeCurriculum):
        raise UserError(f"curriculum = {config.curriculum!r}: chooses among problems, and {config.task} has none")
    if curriculum is not None and not config.dataset:
        raise UserError(f"curriculum = {config.curriculum!r}: chooses among logged episodes; give --dataset FOLDER")
    return curriculum


def asking(logged: Dataset, config: ControlConfig, normalizer: Normalizer | None,
           generator: torch.Generator) -> Sequence:
    """A policy of stretches, with the return that it is to earn.

    Raises:
        UserError: where heads do not divide the width.
    """
    if config.width % config.heads:
        raise UserError(f"heads = {config.heads}: must divide width, {config.width}")
    policy = Sequence(logged.spaces, config.width, config.layers, config.heads, config.context,
                      int(torch.bincount(logged.episode).max()), normalizer, generator)
    best = float(logged.returns.max())
    policy.target.fill_(best if config.target_return is None else config.target_return)
    policy.scale.fill_(max(float(logged.returns.abs().max()), 1e-8))
    return policy


def searched(logged: Dataset | None, normalizer: Normalizer | None) -> Logged:
    """
    Raises:
        UserError: unless something is logged that distances are defined in.
    """
    if logged is None:
        raise UserError("dataset is missing: this method searches logged transitions; give --dataset FOLDER")
    if logged.spaces.numbered:
        raise UserError(f"task = {logged.task!r}: actions are numbered, and this method needs them near to each other")
    return Logged(logged.obs, logged.action, normalizer)


def modelled(method: Method[Any], config: ControlConfig) -> bool:
    """Whether a model of the environment is fitted: to act in, or where nothing acts for the method to judge by."""
    return bool(config.imagined) or ("dynamics" in method.needs and bool(config.dataset) and config.dataset_share == 1)


def believed(dynamics: Dynamics, method: Method[Any], config: ControlConfig) -> Dynamics:
    """
    Raises:
        UserError: unless it is fitted to anything.
    """
    if not modelled(method, config):
        raise UserError("imagined = 0: this method needs a model of the environment; must be ≥ 1")
    return dynamics


def check_imagined(config: ControlConfig) -> None:
    """
    Raises:
        UserError: on a model that nothing can be fitted to, or that nobody acts in.
    """
    if config.imagined and not config.dataset:
        raise UserError(f"imagined = {config.imagined}: a model is fitted to logged transitions; give --dataset FOLDER")
    if config.imagined and round(config.dataset_share * config.batch_size) == config.batch_size:
        raise UserError(f"dataset_share = {config.dataset_share:g}: leaves no row of {config.batch_size} to what is "
                        "imagined")
    if config.model_elites > config.model_members:
        raise UserError(f"model_elites = {config.model_elites}: must be at most model_members, {config.model_members}")
