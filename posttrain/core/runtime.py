"""How this process should use memory: set before torch is imported, and harmless where it is not understood."""

from __future__ import annotations

import ctypes
import os

M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD = -4, -1, -2  # glibc's mallopt


def configure_process() -> None:
    """Huge pages for large tensors, and freed blocks kept instead of being given back and faulted in again.

    A training step allocates and frees the same large blocks every time; without this a tenth to a quarter of it
    goes to page faults.  Values that the user has set in the environment stay.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if "OMP_WAIT_POLICY" not in os.environ:  # threads that spin for long starve each other as soon as another
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # program runs: steps ten times slower, seen on two cores
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_TOP_PAD, 64 << 20)
    except (OSError, AttributeError):
        pass
