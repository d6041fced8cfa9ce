"""Which number formats this machine multiplies natively."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """Low-precision formats widened to fp32; fp32 and fp64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


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


def compute_type(precision: str, device: str = "cpu") -> torch.dtype:
    """The type that "auto", "fp32" or "bf16" means on a device of this machine, of the type "cpu" or "cuda"."""
    if device == "cuda":
        bf16 = precision == "bf16" or (precision == "auto" and torch.cuda.is_bf16_supported(including_emulation=False))
    else:
        bf16 = precision == "bf16" or (precision == "auto" and has_native_bf16())
    return torch.bfloat16 if bf16 else torch.float32
