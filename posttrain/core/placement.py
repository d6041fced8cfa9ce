"""Where a language model is: its weights, its optimizer and its cache on one device, all else in the host's memory.

The border is the policy and its engine.  Token ids go in, and [B, T] numbers come out: batches, rewards, advantages and
the arithmetic of a method stay with the processor, so that no method knows of a device.
"""

from __future__ import annotations

from typing import Literal

import torch

from posttrain.core.errors import UserError

DeviceName = Literal["auto", "cpu", "cuda"]
HOST = torch.device("cpu")


def device_of(name: DeviceName) -> torch.device:
    """What "auto", "cpu" or "cuda" means on this machine; auto is the graphics processor where torch has one.

    Raises:
        UserError: if torch has none and one is asked for.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        for_one = torch.version.cuda or torch.version.hip
        reason = "see nvidia-smi and CUDA_VISIBLE_DEVICES" if for_one else "this build of it is for processors alone"
        raise UserError(f"device = 'cuda': torch {torch.__version__} finds no graphics processor ({reason}); "
                        "allowed here: auto, cpu")
    return torch.device("cuda") if there and name != "cpu" else HOST
