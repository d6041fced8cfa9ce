"""contains: an accepted answer occurs in the completion as a whole word or phrase, in any case."""

from __future__ import annotations

import re
from typing import Any

from posttrain.rewards.verifiers.exact import normalise


def occurs(phrase: str, text: str) -> bool:
    """Whether `phrase` stands in `text` with no letter or digit touching it; never for an empty phrase."""
    wanted = re.escape(normalise(phrase))
    return bool(wanted) and re.search(rf"(?<!\w){wanted}(?!\w)", normalise(text)) is not None


def verify(completion: str, answer: Any) -> float:
    """1.0 when `answer`, or any one of a list of them, occurs in the completion, else 0.0."""
    accepted = answer if isinstance(answer, (list, tuple)) else [answer]
    return float(any(occurs(str(one), completion) for one in accepted))
