"""Time and watch single methods of an object that is in use elsewhere."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any


class Stopwatch:
    """Seconds spent in some methods, by stage."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    def wrap(self, owner: Any, method: str, stage: str) -> None:
        """Count every call of `owner.method` from now on; timed methods must not call one another."""
        inner = getattr(owner, method)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self._seconds[stage] += time.perf_counter() - started

        setattr(owner, method, timed)

    def take(self) -> dict[str, float]:
        """Seconds since the last call."""
        seconds = dict(self._seconds)
        self._seconds.clear()
        return seconds


def tap(owner: Any, method: str, look: Callable[[Any], None]) -> None:
    """Show `look` every result of `owner.method` from now on."""
    inner = getattr(owner, method)

    @functools.wraps(inner)
    def seen(*args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        look(result)
        return result

    setattr(owner, method, seen)
