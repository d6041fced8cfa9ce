"""Find a policy that makes pictures: a known name, a folder that a run left, or a pipeline of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.core.errors import UserError, unknown
from posttrain.policies import digits, terrain
from posttrain.policies.denoising import DenoisingPolicy, Shape, read
from posttrain.policies.diffusers_pipeline import INDEX, load_pipeline
from posttrain.policies.digits import LABELS, SIDE
from posttrain.policies.packaged import fetch

DIGIT = Shape(1, SIDE, SIDE)
KINDS: Mapping[str, type[DenoisingPolicy]] = {**digits.KINDS, terrain.TerrainPolicy.kind: terrain.TerrainPolicy}
NAMES = (*digits.NAMES, terrain.NAME)


def open_policy(target: str, captions: str = "", **sampler: Any) -> DenoisingPolicy:
    """captions: a file of prompts, one a line, for a pipeline that reads text.

    sampler: its `steps` or `spread`, where they are not to be as it was saved.

    Raises:
        UserError: if there is none.
    """
    folder = Path(target).expanduser()
    if target not in NAMES and not folder.is_dir():
        unknown("policy", target, NAMES)
    if target not in NAMES and (folder / INDEX).is_file():
        return load_pipeline(folder, captions=lines_of(captions) if captions else (), **sampler)
    if captions:
        raise UserError(f"captions = '{captions}': {target!r} reads no text")
    if target in digits.NAMES:
        return digits.load_policy(target, **sampler)
    return read(fetch(target) if target in NAMES else folder, KINDS, **sampler)


def lines_of(file: str) -> list[str]:
    """The prompts in a file, blank lines left out.

    Raises:
        UserError: if it cannot be read, or holds none.
    """
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"captions = '{file}': cannot be read: {error}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"captions = '{file}': holds no prompt")
    return lines


def makes_digits(policy: DenoisingPolicy) -> bool:
    """Whether the classifier of digits can look at its pictures, and its labels are the ten."""
    return policy.shape == DIGIT and policy.net.labels == LABELS
