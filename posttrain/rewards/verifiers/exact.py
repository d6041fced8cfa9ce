"""exact: the whole completion is the answer, up to case and white space."""

from __future__ import annotations

from typing import Any


def normalise(text: str) -> str:
    """Lower case (casefold), every run of white space one space, none at the ends."""
    return " ".join(text.split()).casefold()


def verify(completion: str, answer: Any) -> float:
    """1.0 when completion and answer are the same text after `normalise`, else 0.0."""
    return float(normalise(completion) == normalise(str(answer)))
