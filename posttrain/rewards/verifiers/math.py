"""math: the completion and the answer are the same mathematics, by the package math-verify.

It reads LaTeX, fractions, sets and intervals; "50%" and "1/2" are different to it.  It is untrusted only
in its running time: it hands hostile text to sympy, so it runs in a bounded worker.
"""

from __future__ import annotations

from typing import Any

import math_verify

TRUSTED = False


def verify(completion: str, answer: Any) -> float:
    """1.0 when math-verify finds `answer` and the completion equal, else 0.0.

    Raises:
        ValueError: the answer cannot be read.
    """
    # Its own timeouts use signals and a global switch; the worker's timeout bounds every call instead.
    gold = math_verify.parse(_as_math(answer), parsing_timeout=None)
    if not gold:
        raise ValueError(f"the answer {answer!r} cannot be read as mathematics")
    value = math_verify.parse(completion, parsing_timeout=None)
    return float(math_verify.verify(gold, value, timeout_seconds=None))


def _as_math(answer: Any) -> str:
    """The answer inside dollar signs, so that bare LaTeX such as \\frac{1}{2} is read as such."""
    text = str(answer)
    return text if "$" in text or "\\boxed" in text else f"${text}$"
