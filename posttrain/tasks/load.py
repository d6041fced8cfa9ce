"""Find a task by what the user typed.

A built-in task is a file of this folder that defines `task(argument: str) -> Task`.  Its name is the stem,
with hyphens; what follows the name after a hyphen or slash is the argument: "addition-50" is
`addition.task("50")`, "reasoning-gym/leg_counting" is `reasoning_gym.task("leg_counting")`.  A user's own
task is a JSONL file or a function, as `posttrain.tasks.user` has it; names between commas are a mixture.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from posttrain.core.errors import UserError, unknown
from posttrain.tasks.task import Task


def task_names() -> list[str]:
    """The built-in tasks, found by walking this folder, without importing any."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(file.stem.replace("_", "-") for file in files
                  if re.search(r"^def task\(argument: str\)", file.read_text(encoding="utf-8"), re.MULTILINE))


def load_task(name: str, verifier: str | None = None, heldout_file: str | None = None) -> Task:
    """The task called `name`: built in, a JSONL file, `module:function` / `file.py:function`, or several of these.

    `verifier` (a built-in name or an import path) scores the problems of files and functions, and is needed
    there unless they bring answers; `heldout_file` holds the held-out problems of a JSONL file.

    Raises:
        UserError: no such task, or one of the three does not fit the others.
    """
    from posttrain.tasks.user import function, jsonl

    if "," in name and not Path(name).exists():
        return _mixture(name.split(","), verifier, heldout_file)
    if jsonl.is_file_name(name):
        return jsonl.load(name, verifier, heldout_file)
    if heldout_file is not None:
        raise UserError(f"heldout = {heldout_file!r}: only a JSONL task takes one, not {name!r}")
    if name.endswith(".py"):
        raise UserError(f"task = {name!r}: name the function in it too, as {name}:FUNCTION")
    if ":" in name:
        return function.load(name, verifier)
    if verifier is not None:
        raise UserError(f"verifier = {verifier!r}: task {name!r} scores itself; "
                        "only a JSONL file or a function takes a verifier")
    return _built_in(name)


def _built_in(name: str) -> Task:
    for stem in sorted(task_names(), key=len, reverse=True):
        if name == stem or name.startswith((f"{stem}-", f"{stem}/")):
            module = importlib.import_module(f"posttrain.tasks.{stem.replace('-', '_')}")
            found: Task = module.task(name[len(stem) + 1:])
            return found
    from posttrain.tasks.reasoning_gym import dataset_names

    unknown("task", name, [*task_names(), *(f"reasoning-gym/{dataset}" for dataset in dataset_names())])


def _mixture(names: list[str], verifier: str | None, heldout_file: str | None) -> Task:
    from posttrain.tasks.mixture import Mixture
    from posttrain.tasks.user import jsonl

    if heldout_file is not None:
        raise UserError(f"heldout = {heldout_file!r}: only a single JSONL task takes one, not several tasks")
    stripped = [name.strip() for name in names]
    if repeated := [name for name in stripped if stripped.count(name) > 1]:
        raise UserError(f"task = {','.join(stripped)!r}: names {repeated[0]!r} twice")
    own = [name for name in stripped if ":" in name or jsonl.is_file_name(name)]
    if verifier is not None and not own:
        raise UserError(f"verifier = {verifier!r}: none of these tasks takes one; "
                        "only a JSONL file or a function does")
    return Mixture(",".join(stripped), {name: load_task(name, verifier if name in own else None) for name in stripped})
