"""Ranges as types, and the one line that a wrong value gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from posttrain.core.errors import UserError
from posttrain.core.types import Count, Fraction, Natural, NonNegative, Positive, check_ranges


@dataclass
class Options:
    rate: Positive = 1.0
    weight: NonNegative = 0.0
    share: Fraction = 1.0
    rows: Count = 1
    rank: Natural = 0
    kind: Literal["linear", "cosine"] = "linear"
    limit: Positive | None = None
    plain: float = -3.5
    name: str = ""

    def __post_init__(self) -> None:
        check_ranges(self)


@pytest.mark.parametrize("good", [
    {}, {"rate": 1e-9}, {"rate": 3}, {"weight": 0}, {"share": 0.0}, {"share": 1}, {"rows": 1}, {"rank": 0},
    {"kind": "cosine"}, {"limit": None}, {"limit": 2.0}, {"plain": -1e9}, {"name": "anything"},
])
def test_accepts(good: dict[str, Any]) -> None:
    Options(**good)


@pytest.mark.parametrize(("bad", "line"), [
    ({"rate": 0.0}, "rate = 0.0: must be > 0"),
    ({"weight": -0.1}, "weight = -0.1: must be ≥ 0"),
    ({"share": 1.5}, "share = 1.5: must be ≥ 0 and ≤ 1"),
    ({"rows": 0}, "rows = 0: must be ≥ 1"),
    ({"rows": 2.0}, "rows = 2.0: must be a finite whole number"),
    ({"rank": -1}, "rank = -1: must be ≥ 0"),
    ({"rank": True}, "rank = True: must be a finite whole number"),
    ({"rate": float("nan")}, "rate = nan: must be a finite number"),
    ({"rate": float("inf")}, "rate = inf: must be a finite number"),
    ({"rate": "1"}, "rate = '1': must be a finite number"),
    ({"rate": None}, "rate = None: must be a finite number"),
    ({"plain": float("-inf")}, "plain = -inf: must be a finite number"),
    ({"kind": "linaer"}, "kind = 'linaer': must be one of linear, cosine"),
    ({"limit": -2.0}, "limit = -2.0: must be > 0"),
    ({"rows": 0, "rate": -1.0}, "rate = -1.0: must be > 0"),  # the first that is wrong
])
def test_refuses(bad: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        Options(**bad)
    assert str(caught.value) == line
