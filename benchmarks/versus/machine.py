"""A process of its own that says what this machine is: `python -m versus.machine PRECISION THREADS`.

Prints one JSON object.  It ends before the measurement begins, so that its threads and memory are gone then.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from posttrain.core.runtime import configure_process

SIZES = (512, 1024, 2048, 3072)  # of square matrices
REPEATS = 6
COPIED = 256 << 20  # bytes, many times what any cache holds
LONGEST = 0.5  # seconds of one product beyond which no larger one is tried: bf16 can be emulated, and very slow


def describe(precision: str, threads: int) -> dict[str, Any]:
    """precision: "auto", "fp32" or "bf16"; threads: 0 for one per core."""
    import torch

    from posttrain.nets.precision import compute_type

    torch.set_num_threads(threads or torch.get_num_threads())
    dtype = compute_type(precision)
    return {"torch": torch.__version__.partition("+")[0],
            "instructions": instructions(),
            "precision": {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype],
            "threads": torch.get_num_threads(),
            "gflops": peak(dtype), "gbytes": bandwidth()}


def instructions() -> str:
    """The widest that torch uses of this processor, and its tiles for bf16 if it has them."""
    import torch

    from posttrain.nets.precision import cpu_flags

    tiles = ", AMX" if "amx_bf16" in cpu_flags() else ""
    return f"{torch.backends.cpu.get_cpu_capability()}{tiles}"


def peak(dtype: Any) -> float:
    """The highest rate of a matrix product, GFLOP/s."""
    best = 0.0
    for n in SIZES:
        seconds = fastest_product(n, dtype)
        best = max(best, 2 * n**3 / seconds / 1e9)
        if seconds > LONGEST:
            break
    return best


def bandwidth() -> float:
    """The highest rate of moving memory, GB/s: of a copy, which reads and writes as much."""
    import torch

    source = torch.zeros(COPIED, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * COPIED / fastest(lambda: target.copy_(source)) / 1e9


def fastest_product(n: int, dtype: Any) -> float:
    """Seconds of the fastest of several n × n products."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, n, generator=generator).to(dtype) for _ in range(2))
    out = torch.empty(n, n, dtype=dtype)
    return fastest(lambda: torch.mm(a, b, out=out))


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


if __name__ == "__main__":
    configure_process()
    print(json.dumps(describe(sys.argv[1], int(sys.argv[2]))))
