"""Find a task by what the user typed.

A built-in task is a file of this folder that defines `task(argument: str) -> Task`.  Its name is the stem,
with hyphens; what follows the name after a hyphen or slash is the argument: "addition-50" is
`addition.task("50")`, "reasoning-gym/leg_counting" is `reasoning_gym.task("leg_counting")`.  A user's own
task is a JSONL file or a function, as `posttrain.tasks.user` has it.
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
    """The task called `name`: built in, a JSONL file, or `module:function` / `file.py:function`.

    `verifier` (a built-in name or an import path) scores the problems of a file or function, and is needed
    there; `heldout_file` holds the held-out problems of a JSONL file.

    Raises:
        UserError: no such task, or one of the three does not fit the others.
    """
    from posttrain.tasks.user import function, jsonl

    if jsonl.is_file_name(name):
        return jsonl.load(name, _needed(verifier, name), heldout_file)
    if heldout_file is not None:
        raise UserError(f"heldout = {heldout_file!r}: only a JSONL task takes one, not {name!r}")
    if name.endswith(".py"):
        raise UserError(f"task = {name!r}: name the function in it too, as {name}:FUNCTION")
    if ":" in name:
        return function.load(name, _needed(verifier, name))
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


def _needed(verifier: str | None, name: str) -> str:
    from posttrain.rewards.verifiers import verifier_names

    if verifier is None:
        names = ", ".join(verifier_names())
        raise UserError(f"verifier is missing: task {name!r} needs one of {names}, "
                        "or your own as file.py:function")
    return verifier
