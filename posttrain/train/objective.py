"""Say what will be optimised, before it is."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

from posttrain.core import Method
from posttrain.core.method_files import MethodFile
from posttrain.core.source import show
from posttrain.train.config import Config
from posttrain.train.setting import Setting


def describe(method: Method[Any], config: Config, setting: Setting) -> list[tuple[str, str]]:
    """(label, text) pairs: the equation, its numbers, its denominators and units, the policy, the optimizer."""
    decay = "" if config.lr_schedule == "constant" else f" to {config.lr / 10:g} over {counted(config.steps, 'step')}"
    return [
        ("objective", equation(method)),
        ("with", values(method)),
        *setting.describe(method),
        ("optimizer", f"AdamW, lr {config.lr:g} {config.lr_schedule}{decay}, "
                      f"global gradient norm ≤ {config.max_grad_norm:g}{own_steps(method)}"),
    ]


def own_steps(method: Method[Any]) -> str:
    """`; policy by the method's own step`, where there is one."""
    return f"; {' and '.join(method.rules)} by the method's own step" if method.rules else ""


def method_name(method: Method[Any]) -> str:
    """The name that the user types."""
    return _file(method).name


def method_spec(method: Method[Any]) -> str:
    """What finds the method again from wherever: its name, or the path of a user's own file."""
    return _file(method).spec


def _file(method: Method[Any]) -> MethodFile:
    return MethodFile(Path(inspect.getfile(type(method))), type(method).__name__)


def values(record: Any) -> str:
    """`clip_low = 0.2, clip_high = 0.2`: the fields of a method or a curriculum."""
    return ", ".join(f"{f.name} = {show(getattr(record, f.name))}" for f in dataclasses.fields(record))


def counted(number: int, what: str, several: str = "") -> str:
    """`1 step`, `2 steps`."""
    return f"{number} {what if number == 1 else several or what + 's'}"


def updates(method: Method[Any]) -> str:
    return f"{counted(method.epochs * method.minibatches, 'update')} from each batch"


def equation(method: Method[Any]) -> str:
    """The indented block of the method file's docstring."""
    text = inspect.getdoc(sys.modules[type(method).__module__]) or ""
    blocks = [block for block in text.split("\n\n") if block.startswith(("    ", "\t"))]
    return textwrap.dedent(blocks[0]) if blocks else text.partition("\n")[0]
