"""Find a user's function by import path: `module:function` or `path/to/file.py:function`."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from posttrain.core.errors import UserError, nearest


def absolute(spec: str) -> str:
    """The same import path with its file, if it names one, made absolute."""
    place, _, function = spec.rpartition(":")
    return f"{Path(place).resolve()}:{function}" if place.endswith(".py") else spec


@functools.cache
def load_function(spec: str, field: str) -> Callable[..., Any]:
    """The function that `spec` names; `field` ("verifier", "task") is what an error calls it.

    Raises:
        UserError: no such file, module or function, or the import itself failed.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise UserError(f"{field} = {spec!r}: must be module:function or file.py:function")
    module = _from_file(Path(place), spec, field) if place.endswith(".py") else load_module(place, spec, field)
    function = getattr(module, name, None)
    if not callable(function):
        close = nearest(name, [key for key, value in vars(module).items() if callable(value)])
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"{field} = {spec!r}: {place} has no function {name!r}{hint}")
    found: Callable[..., Any] = function
    return found


def _from_file(path: Path, spec: str, field: str) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise UserError(f"{field} = {spec!r}: no such file {path}")
    _add_to_path(str(path.parent))  # so that the file can import its neighbours
    # A name made from the path: two files called reward.py must not be taken for one module.
    name = f"{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _import_failed(spec, field, error) from error
    return module


def load_module(name: str, spec: str, field: str) -> ModuleType:
    """The module of that name, of the working folder's too; `spec` and `field` as in `load_function`.

    Raises:
        UserError: if importing it failed.
    """
    _add_to_path(os.getcwd())
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise _import_failed(spec, field, error) from error


def _import_failed(spec: str, field: str, error: Exception) -> UserError:
    return UserError(f"{field} = {spec!r}: importing it failed: {type(error).__name__}: {error}")


def _add_to_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)
