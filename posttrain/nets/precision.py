"""Which number formats this machine multiplies natively, and sums that fp32 does not lose."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

TILES = (158, 0x1023, 18)  # Linux on x86-64: arch_prctl, which asks for a feature's use, of tiles' numbers
SUMMED = 1 << 15  # numbers whose squares fp32 adds without a loss that shows


def at_least_fp32(x: Tensor) -> Tensor:
    """Low-precision formats widened to fp32; fp32 and fp64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def length(x: Tensor) -> float:
    """√Σ x² of x [n].  On processors torch adds all squares in fp32: of the 135 million numbers of a small language
    model's gradient it finds 1.3% too little."""
    if x.device.type != "cpu" or len(x) <= SUMMED:
        return float(torch.linalg.vector_norm(x))
    return float(torch.stack([part.dot(part) for part in x.split(SUMMED)]).double().sum().sqrt())


def cpu_flags() -> frozenset[str]:
    """The instruction sets that the kernel reports; empty where it reports none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


def has_native_bf16() -> bool:
    """Whether the processor multiplies bf16 faster than fp32."""
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16"})


@cache
def has_tiles() -> bool:
    """Whether the processor multiplies bf16 by tiles (AMX), and the system lets this process use them."""
    return "amx_bf16" in cpu_flags() and ctypes.CDLL(None).syscall(*map(ctypes.c_long, TILES)) == 0


def compute_type(precision: str, device: str = "cpu") -> torch.dtype:
    """The type that "auto", "fp32" or "bf16" means on a device of this machine, of the type "cpu" or "cuda"."""
    if device == "cuda":
        bf16 = precision == "bf16" or (precision == "auto" and torch.cuda.is_bf16_supported(including_emulation=False))
    else:
        bf16 = precision == "bf16" or (precision == "auto" and has_native_bf16())
    return torch.bfloat16 if bf16 else torch.float32
