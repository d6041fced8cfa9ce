"""Which kind of policy a run trains, read from the names of its policy and its task, without importing torch."""

from __future__ import annotations

import importlib
import json
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from posttrain.train.config import Config, ControlConfig, LanguageConfig, MaskedConfig, PictureConfig

if TYPE_CHECKING:
    from posttrain.core import Curriculum, Method
    from posttrain.train.setting import Setting


class Kind(NamedTuple):
    """A kind of policy: the options that its runs have, and where its setting is."""

    config: type[Config]
    setting: str  # module:class
    clip: float | None = None  # ε that its policies declare, for methods whose own is meant for a token's ratio


KINDS: Mapping[str, Kind] = {
    "language": Kind(LanguageConfig, "posttrain.train.language:LanguageSetting"),
    "masked": Kind(MaskedConfig, "posttrain.train.language:LanguageSetting"),
    "control": Kind(ControlConfig, "posttrain.train.control:ControlSetting"),
    # a log-probability is a mean over pixels, not a sum: DDPO's clip range (2305.13301, app. D)
    "pictures": Kind(PictureConfig, "posttrain.train.pictures:PictureSetting", clip=1e-4),
}
CONTROL = typing.get_args(typing.get_type_hints(ControlConfig)["policy"])
PICTURES = ("digits-flow", "digits-ddpm", "digits-consistency", "digits-noise", "terrain")  # policies, by name
BROUGHT: Mapping[str, Mapping[str, Any]] = {  # policy -> the options for which it has other defaults than its kind
    "terrain": {"task": "terrain/walkable", "steps": 8, "prompts": 2, "samples": 8, "denoising_steps": 2, "lr": 3e-5,
                "eval_pictures": 40},
}
GYM_ID = re.compile(r"([\w.]+:)?([\w:.-]+/)?[A-Za-z][\w.-]*-v\d+")  # as Gymnasium spells them


def kind_of(policy: str, task: str) -> str:
    """The key in KINDS; empty names are what the user left to defaults."""
    if makes_pictures(policy) or (not policy and task.startswith(("digits/", "pictures/", "terrain/"))):
        return "pictures"
    if policy in CONTROL or (not policy and GYM_ID.fullmatch(task)):
        return "control"
    return "masked" if policy == "tiny-masked" or has_mask(Path(policy).expanduser()) else "language"


def kind_of_folder(folder: Path) -> str:
    """The kind of the policy that a folder holds: what its policy.json says, or else a language model.

    A model_index.json is of a diffusers pipeline.
    """
    if (folder / "model_index.json").is_file():
        return "pictures"
    told = told_by(folder)
    if not told:
        return "language"
    return "control" if "spaces" in told else "pictures"  # both may have the kind "flow"


def told_by(folder: Path) -> Mapping[str, Any]:
    """What its policy.json holds; empty without one."""
    try:
        told = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def brought(policy: str) -> Mapping[str, Any]:
    """The defaults that a policy brings, by its name or as the kind that its folder tells."""
    return BROUGHT.get(policy) or BROUGHT.get(str(told_by(Path(policy).expanduser()).get("kind")), {})


def makes_pictures(policy: str) -> bool:
    """Whether that is the name of such a policy, or its folder."""
    return policy in PICTURES or (bool(policy) and kind_of_folder(Path(policy).expanduser()) == "pictures")


def has_mask(folder: Path) -> bool:
    """Whether a Hugging Face folder holds a masked-diffusion model: its config.json has a `mask_token_id`."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("mask_token_id") is not None
    except (OSError, ValueError, AttributeError):
        return False


def open_setting(method: Method[Any], config: Config, curriculum: Curriculum | None) -> Setting:
    """The setting of the kind whose options these are.

    Raises:
        UserError: on options that cannot be.
    """
    kind = next(kind for kind in KINDS.values() if type(config) is kind.config)
    module, _, name = kind.setting.partition(":")
    made: Setting = getattr(importlib.import_module(module), name)(method, config, curriculum)
    return made
