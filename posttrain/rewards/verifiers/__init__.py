"""Verifiers: functions that compare a completion with an answer.

Each file here is one built-in verifier: its stem is the name, its function is
`verify(completion, answer) -> float`, and `TRUSTED = False` in it asks for a bounded worker.  A user's own
verifier is named by import path and may take more keys of the problem:
`verifier(completion, answer, **data)`.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from posttrain.core.errors import UserError, unknown
from posttrain.rewards.functions import absolute, load_function


class Verifier:
    """A verifier ready to call; pickles as its name, so a worker imports it for itself."""

    def __init__(self, spec: str, function: Callable[..., Any], trusted: bool) -> None:
        self.spec, self.function, self.trusted = spec, function, trusted
        positional, named, self._takes_all = _parameters(function, spec)
        self._positional = set(positional)
        self._optional = {name for name, needed in named.items() if not needed}
        self.required = tuple(name for name, needed in named.items() if needed)

    def __call__(self, completion: str, answer: Any, data: Mapping[str, Any]) -> Any:
        """The function's own result, called with those keys of `data` that it asks for."""
        wanted = {key: value for key, value in data.items() if self._wants(key)}
        return self.function(completion, answer, **wanted)

    def _wants(self, key: str) -> bool:
        if key in self._positional:  # a key called "completion" must not collide with the argument
            return False
        return self._takes_all or key in self._optional or key in self.required

    def __reduce__(self) -> tuple[Any, ...]:
        return load_verifier, (self.spec,)


def verifier_names() -> list[str]:
    """The built-in verifiers, found by walking this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


def load_verifier(spec: str) -> Verifier:
    """A built-in verifier by name, or a user's by import path.

    Raises:
        UserError: unknown name, a package it needs is missing, or a function that cannot be one.
    """
    if ":" in spec:
        spec = absolute(spec)
        return Verifier(spec, load_function(spec, "verifier"), trusted=False)
    name = spec.replace("-", "_")
    if name not in verifier_names():
        unknown("verifier", spec, verifier_names())
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        package = str(error.name).replace("_", "-")
        raise UserError(f"verifier = {spec!r}: needs the package {package}: pip install {package}") from error
    return Verifier(name, module.verify, trusted=getattr(module, "TRUSTED", True))


def as_completion(answer: Any) -> str:
    """The text that a perfect completion would consist of: the answer itself, or its JSON."""
    return answer if isinstance(answer, str) else json.dumps(answer)


def _parameters(function: Callable[..., Any], spec: str) -> tuple[list[str], dict[str, bool], bool]:
    """(names of the first two, {further name: is it required}, does it take **data)."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some functions written in C tell no signature
        return [], {}, False
    kinds = inspect.Parameter
    if any(p.kind is kinds.VAR_POSITIONAL for p in parameters[:2]):
        return [], {}, any(p.kind is kinds.VAR_KEYWORD for p in parameters)
    first = [p for p in parameters[:2] if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    if len(first) < 2:
        raise UserError(f"verifier = {spec!r}: must take (completion, answer), and optionally **data")
    further = [p for p in parameters[2:] if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    named = {p.name: p.default is kinds.empty for p in further}
    if late := [name for name in ("completion", "answer") if named.get(name)]:
        raise UserError(f"verifier = {spec!r}: must take (completion, answer) first, whatever it calls them, and then "
                        f"keys of the problem, as prompt; {late[0]} comes too late")
    return [p.name for p in first], named, any(p.kind is kinds.VAR_KEYWORD for p in parameters)
