"""Ranges as types: an annotation says what a number may be, and `check_ranges` holds it to that."""

from __future__ import annotations

import dataclasses
import math
import operator
import typing
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge, Gt, Interval

from posttrain.core.errors import UserError

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
AtLeastOne = Annotated[float, Ge(1)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]


def check_ranges(instance: Any) -> None:
    """Hold every annotated number of a dataclass instance to its type and range.

    Raises:
        UserError: naming the first field that is wrong, its value and what is allowed.
    """
    hints = get_type_hints(type(instance), include_extras=True)
    for field in dataclasses.fields(instance):
        value, hint = getattr(instance, field.name), hints[field.name]
        options = [a for a in typing.get_args(hint) if a is not type(None)]
        if type(None) in typing.get_args(hint):  # Optional[...]
            if value is None:
                continue
            hint = options[0]
        if typing.get_origin(hint) is typing.Literal:
            if value not in typing.get_args(hint):
                allowed = ", ".join(map(str, typing.get_args(hint)))
                raise UserError(f"{field.name} = {value!r}: must be one of {allowed}")
            continue
        base = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
        if base in (int, float) and not _is_number(value, base):
            raise UserError(f"{field.name} = {value!r}: must be a finite {'whole ' * (base is int)}number")
        if typing.get_origin(hint) is Annotated:
            for bound in typing.get_args(hint)[1:]:
                _check_bound(field.name, value, bound)


def _is_number(value: Any, base: type) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and (base is float or isinstance(value, int))


def _check_bound(name: str, value: float, bound: Any) -> None:
    checks = (("ge", "≥", operator.ge), ("gt", ">", operator.gt),
              ("le", "≤", operator.le), ("lt", "<", operator.lt))
    limits = [(sign, getattr(bound, key), holds) for key, sign, holds in checks
              if getattr(bound, key, None) is not None]
    if not all(holds(value, limit) for _, limit, holds in limits):
        allowed = " and ".join(f"{sign} {limit:g}" for sign, limit, _ in limits)
        raise UserError(f"{name} = {value!r}: must be {allowed}")
