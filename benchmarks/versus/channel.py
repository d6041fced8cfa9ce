"""One side's end of the conversation: it does a step when it is told to, and says how that went."""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any


class Channel:
    """JSON lines on what was standard output; whatever a library prints goes to standard error instead."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def send(self, **message: Any) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def wait(self) -> None:
        """Until the next step is asked for; ends the process when no more will be."""
        if not sys.stdin.readline():
            raise SystemExit(0)


def peak_bytes() -> int:
    """The most memory that this process has held at once (resident set)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
