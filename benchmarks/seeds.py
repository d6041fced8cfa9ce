"""What several seeds say together, and the machine that they ran on."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence

T95 = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}  # Student's t, n − 1 degrees, by n


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and the half width of its 95% interval, NaN for one seed."""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.nan
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, T95[n] * deviation / math.sqrt(n)


def machine() -> str:
    """Cores and instruction set, as every figure names them."""
    import torch

    return f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, " \
           f"Python {platform.python_version()}"
