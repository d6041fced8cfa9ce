"""One clear line for every wrong input: the field, the value, what is allowed, the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NoReturn


class PosttrainError(Exception):
    """A run that cannot go on, told in one line.  The command line prints it and exits with 1."""


class UserError(PosttrainError, ValueError):
    """Wrong use, found before anything was written.  The command line prints it and exits with 2."""


def nearest(name: str, allowed: Iterable[str], count: int = 1) -> list[str]:
    """The names in `allowed` that look most like `name`, best first; empty when none comes close."""
    close = difflib.get_close_matches(name, list(allowed), n=count + 4, cutoff=0.5)
    return sorted(close, key=lambda other: sorted(other) != sorted(name))[:count]  # swapped letters come first


def unknown(field: str, value: str, allowed: Iterable[str]) -> NoReturn:
    """Refuse `value` for `field`, naming the nearest valid name, or all of them when they are few.

    Raises:
        UserError: always.
    """
    names = sorted(allowed)
    close = nearest(value, names)
    hint = f"did you mean {close[0]!r}?" if close else ""
    if len(names) <= 12:
        hint = f"{hint} allowed: {', '.join(names)}".strip()
    raise UserError(f"{field} = {value!r}: no such {field.replace('_', ' ')}; {hint}".rstrip("; "))
