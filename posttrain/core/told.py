"""What a run was told, read back from its config.json, from whatever folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAMES_FILES = ("policy", "task", "verifier", "heldout", "dataset", "start_from")  # or may, from where a run was begun


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json says; files and folders that it names from where the run was begun are found from here too.

    Raises:
        OSError, ValueError, KeyError: where there is no such file, or it is not of a run.
    """
    told: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    begun = Path(told.get("begun_in", "."))
    if begun.is_dir() and not begun.samefile(Path.cwd()):
        told["config"] |= {name: _placed(told["config"][name], begun) for name in NAMES_FILES if name in told["config"]}
    return told


def _placed(value: Any, begun: Path) -> Any:
    """A relative path, or `file.py:function`, that leads somewhere from `begun` is made absolute; all else stays."""
    if isinstance(value, list):
        return [_placed(each, begun) for each in value]
    if not isinstance(value, str):
        return value
    if "," in value and not (begun / value).exists():
        return ",".join(_placed(each.strip(), begun) for each in value.split(","))
    place, colon, function = value.rpartition(":") if ".py:" in value else (value, "", "")
    is_path = len(Path(place).parts) > 1 or Path(place).suffix in (".py", ".jsonl")  # and no name that is known
    return f"{begun / place}{colon}{function}" if is_path and (begun / place).exists() else value
