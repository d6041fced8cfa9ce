"""A process of its own that says what this machine is: `python -m versus.machine PRECISION THREADS`.

Prints one JSON object.  It ends before the measurement begins, so that its threads and memory are gone then.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from posttrain.core.runtime import configure_process

SIZES = (512, 1024, 2048, 3072)  # of square matrices
REPEATS = 6
LONGEST = 0.5  # seconds of one product beyond which no larger one is tried: bf16 can be emulated, and very slow


def describe(precision: str, threads: int) -> dict[str, Any]:
    """precision: "auto", "fp32" or "bf16"; threads: 0 for one per core."""
    import torch

    from posttrain.nets.precision import compute_type

    torch.set_num_threads(threads or torch.get_num_threads())
    dtype = compute_type(precision)
    return {"torch": torch.__version__.partition("+")[0],
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "precision": {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype],
            "threads": torch.get_num_threads(),
            "gflops": peak(dtype)}


def peak(dtype: Any) -> float:
    """The highest rate of a matrix product, GFLOP/s."""
    best = 0.0
    for n in SIZES:
        seconds = fastest_product(n, dtype)
        best = max(best, 2 * n**3 / seconds / 1e9)
        if seconds > LONGEST:
            break
    return best


def fastest_product(n: int, dtype: Any) -> float:
    """Seconds of the fastest of several n × n products."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, n, generator=generator).to(dtype) for _ in range(2))
    out = torch.empty(n, n, dtype=dtype)
    fastest = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        fastest = min(fastest, time.perf_counter() - started)
    return fastest


if __name__ == "__main__":
    configure_process()
    print(json.dumps(describe(sys.argv[1], int(sys.argv[2]))))
