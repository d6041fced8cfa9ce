"""What can be checked about a picture without a model: pictures [B, D] in [−1, 1], squares of D numbers -> [B]."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

LEVELS = 16  # of grey, beside black


def brightness(picture: Tensor) -> Tensor:
    """The share of white, in [0, 1]."""
    return (picture.clamp(-1, 1) + 1).mean(1) / 2


def symmetry(picture: Tensor) -> Tensor:
    """1 − the mean difference from the mirror image, left for right, in [0, 1]."""
    side = math.isqrt(picture.shape[1])
    square = picture.clamp(-1, 1).view(-1, side, side)
    return 1 - (square - square.flip(2)).abs().mean((1, 2)) / 2


def compressibility(picture: Tensor) -> Tensor:
    """−bytes of the picture in 17 greys, by zlib; the task of Black et al. 2305.13301, who take JPEG's kilobytes."""
    return -torch.tensor([float(len(zlib.compress(row, 9))) for row in greys(picture)])


def incompressibility(picture: Tensor) -> Tensor:
    """Bytes of the picture, by zlib."""
    return -compressibility(picture)


def greys(picture: Tensor) -> list[bytes]:
    """One byte for each number of each picture: 0 black, 16 white."""
    return [bytes(row) for row in ((picture.clamp(-1, 1) + 1) * LEVELS / 2).round().to(torch.uint8).tolist()]
