"""json_equal: the completion is the answer's JSON value; key order, white space and 1 / 1.0 do not matter.

The JSON is the whole completion, or what stands in its last ``` fence.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse(text: str) -> Any:
    """The JSON value of a text.

    Raises:
        ValueError: no JSON, NaN or an infinity, or nested too deeply.
    """
    try:
        return json.loads(_inside_fence(text.strip()), parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def verify(completion: str, answer: Any) -> float:
    """1.0 when both are the same JSON value, else 0.0.  An `answer` that is JSON text counts as its value."""
    try:
        value = parse(completion)
    except ValueError:
        return 0.0
    return float(_same(value, _value(answer)))


def _value(answer: Any) -> Any:
    if not isinstance(answer, str):
        return answer
    try:
        return parse(answer)
    except ValueError:
        return answer


def _inside_fence(text: str) -> str:
    parts = text.rsplit("```", 2)
    if len(parts) < 3:
        return text
    return parts[1].removeprefix("json")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _same(a: Any, b: Any) -> bool:
    """Equality that keeps true and 1 apart.  Recursion ends with the shallower of the two."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)
