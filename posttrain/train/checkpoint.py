"""Checkpoints that survive being killed: written beside, flushed, checksummed, renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from posttrain.core.errors import PosttrainError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a step left behind: tensors by name, and plain data."""

    step: int
    tensors: dict[str, Tensor]
    data: dict[str, Any]


def write_json(path: Path, data: Any) -> None:
    """Replace a JSON file whole or not at all, and have it on the disk before returning."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=2, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the folder's own entries on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], data: Mapping[str, Any], keep: int) -> Path:
    """Write folder/step-N and forget all but the newest `keep` up to it; a later one can only be damaged.

    Raises:
        PosttrainError: if the disk cannot take it; older checkpoints are then untouched.
    """
    target = folder / f"step-{step:06d}"
    temporary = folder / f".{target.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(dict(tensors), temporary / "state.safetensors")
        write_json(temporary / "state.json", {"step": step, **data})
        sums = {path.name: checksum(path) for path in sorted(temporary.iterdir())}
        write_json(temporary / MANIFEST, sums)
        _flush(temporary / "state.safetensors")
        if target.exists():  # the same step again, after a resume from an older one
            shutil.rmtree(target)
        os.replace(temporary, target)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise PosttrainError(f"checkpoint of step {step}: cannot be written to {folder}: {error}; the run can be "
                             "resumed from the one before once there is room") from error
    for old in [s for s in steps(folder) if s <= step][:-keep]:
        shutil.rmtree(folder / f"step-{old:06d}")
    return target


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def steps(folder: Path) -> list[int]:
    """Steps that have a checkpoint, oldest first, whole or not."""
    numbers = (path.name.removeprefix("step-") for path in folder.glob("step-[0-9]*"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def load_newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and one line for each newer one that is not."""
    complaints: list[str] = []
    for step in reversed(steps(folder)):
        path = folder / f"step-{step:06d}"
        reason = damage(path)
        if reason is None:
            data = json.loads((path / "state.json").read_text(encoding="utf-8"))
            return Checkpoint(step, load_file(path / "state.safetensors"), data), complaints
        complaints.append(f"checkpoint {path} is damaged ({reason}); using the one before")
    return None, complaints


def damage(path: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None."""
    try:
        sums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name in ("state.safetensors", "state.json"):
            if checksum(path / name) != sums[name]:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None
