"""One score, whatever the scorer does: a number in [0, 1], or one line that says why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

LONGEST_FAILURE = 200  # characters


@dataclass(frozen=True)
class Scored:
    """The score of one completion: a value, and where the task has it a score of its steps; or a failure."""

    value: float | None = None     # in [0, 1]
    failure: str | None = None     # one line, for the record and for counting
    process: float | None = None   # in [0, 1]


class Scores(Protocol):
    """The part of a task that scoring needs."""

    @property
    def name(self) -> str: ...
    @property
    def trusted(self) -> bool: ...
    def score(self, problem: Any, completion: str) -> float: ...


def grade(task: Scores, problem: Any, completion: str) -> Scored:
    """Score one completion; an exception or a result that is no number in [0, 1] becomes a failure."""
    try:
        scored = _checked(task.score(problem, completion))
        process = getattr(task, "process", None)
        if process is None or scored.value is None:
            return scored
        steps = _checked(process(problem, completion))
        return steps if steps.value is None else Scored(scored.value, process=steps.value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() in a verifier is a failure like any other
        return Scored(failure=one_line(f"{type(error).__name__}: {error}"))


def _checked(result: Any) -> Scored:
    value = result.item() if hasattr(result, "item") else result  # numpy and torch scalars
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:  # a comparison with NaN is false
        return Scored(failure=one_line(f"returned {value!r}, must be a number in [0, 1]"))
    return Scored(value=float(value))


def one_line(text: str) -> str:
    """The text on one printable line of at most `LONGEST_FAILURE` characters."""
    text = text[: 4 * LONGEST_FAILURE]  # first, because what follows costs time in proportion
    text = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= LONGEST_FAILURE else text[: LONGEST_FAILURE - 3] + "..."
