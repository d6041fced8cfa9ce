"""choice: the letter chosen among A, B, C and D.

The letter is the last one announced ("answer: B", "option (b)", "the answer is B"), else a completion that is
one letter and no more ("b)"), else the last capital letter that stands alone.
"""

from __future__ import annotations

import re
from typing import Any

_ANNOUNCED = re.compile(r"\b(?:answer|option|choice)\b(?: is)?[ :*]{0,4}\(?([a-d])(?![\w'])", re.IGNORECASE)
_ALONE = re.compile(r"\W{0,4}([a-d])\W{0,4}", re.IGNORECASE)
_CAPITAL = re.compile(r"(?<![\w'])([A-D])(?![\w'])")


def chosen(text: str) -> str | None:
    """The letter that a text settles on, as a capital; None when there is none."""
    text = text.strip()
    alone = _ALONE.fullmatch(text)
    letters = _ANNOUNCED.findall(text) or ([alone.group(1)] if alone else _CAPITAL.findall(text))
    return letters[-1].upper() if letters else None


def verify(completion: str, answer: Any) -> float:
    """1.0 when the chosen letter is `answer` (A, B, C or D in either case), else 0.0.

    Raises:
        ValueError: the answer is no such letter.
    """
    letter = str(answer).strip().upper()
    if letter not in ("A", "B", "C", "D"):
        raise ValueError(f"the answer {answer!r} is not one of A, B, C, D")
    return float(chosen(completion) == letter)
