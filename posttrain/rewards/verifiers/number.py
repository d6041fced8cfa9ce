"""number: the last number of the completion equals the answer.

"1,234", "-5", "27.", "27.0", "#### 27", "2.5e3" are read as people read them.  A sign counts only where
it cannot be an operator: "20-5" ends with 5, "is -5" with -5.  Fractions and percent signs are not
understood: "3/4" ends with 4; the verifier `math` reads those.
"""

from __future__ import annotations

import math
import re
from collections import deque
from decimal import Decimal
from typing import Any

# ASCII digits only.  A sign after a digit, a letter or a closing bracket is an operator.
_NUMBER = re.compile(
    r"(?:(?<![0-9A-Za-z)\].])[-+\u2212])?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]{1,4}(?![0-9]))?"
)
_LONGEST = 400  # characters; nobody means a longer number, and arithmetic on one is slow


def last_number(text: str) -> Decimal | None:
    """The last number in a text, exactly; None when there is none."""
    last = deque(_NUMBER.finditer(text), maxlen=1)
    if not last or len(last[0].group()) > _LONGEST:
        return None
    return Decimal(last[0].group().replace(",", "").replace("\u2212", "-"))


def verify(completion: str, answer: Any) -> float:
    """1.0 when the last number equals `answer`: a number, or a text whose last number counts.

    Whole numbers must be equal exactly; others to a relative 1e-6.

    Raises:
        ValueError: the answer holds no number.
    """
    target = last_number(str(answer))
    if target is None or isinstance(answer, bool):
        raise ValueError(f"the answer {answer!r} holds no number")
    value = last_number(completion)
    if value is None:
        return 0.0
    if target == target.to_integral_value():
        return float(value == target)
    return float(math.isclose(value, target, rel_tol=1e-6, abs_tol=0.0))
