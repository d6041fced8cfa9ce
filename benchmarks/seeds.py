"""What several seeds say together, and the machine that they ran on."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence

from posttrain.evaluate.intervals import student


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and the half width of its 95% interval, NaN for one seed."""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.nan
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, student(n - 1) * deviation / math.sqrt(n)


def machine() -> str:
    """Cores and instruction set, as every figure names them."""
    import torch

    return f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, " \
           f"Python {platform.python_version()}"
