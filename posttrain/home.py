"""Where this library keeps what it makes for itself."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """$POSTTRAIN_HOME, else ~/.cache/posttrain; it may not exist yet."""
    chosen = os.environ.get("POSTTRAIN_HOME")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "posttrain"
