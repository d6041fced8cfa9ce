"""What several seeds say together, and the machine that they ran on."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence

from versus.machine import instructions

from posttrain.evaluate.intervals import half_width


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and the half width of its 95% interval, NaN for one seed."""
    return sum(values) / len(values), half_width(values) if len(values) > 1 else math.nan


def machine() -> str:
    """Cores and instruction set, as every figure names them."""
    import torch

    return f"{os.cpu_count()} cores, {instructions()}, torch {torch.__version__}, Python {platform.python_version()}"
