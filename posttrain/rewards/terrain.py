"""What can be checked about terrain: pictures [B, D] in [−1, 1], each a square of heights in metres -> [B].

    h = 0.1 sinh( (picture + 1) / 2 · asinh(22.17 / 0.1) )          as the package of the terrain model counts them
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.ndimage import label
from torch import Tensor

SCALE, TOP = 0.1, 22.16864013671875  # m; the package's
CELL = 0.1  # m from one height to the next, as the package draws them
STEEPEST = 0.3  # rise over run that can be walked, 17°


def heights(picture: Tensor, width: int = 0) -> Tensor:
    """[B, D] -> metres [B, H, W], 0 to 22.  width: of a row, a square's if 0."""
    shaped = picture.clamp(-1, 1).view(len(picture), -1, width or math.isqrt(picture.shape[1]))
    return SCALE * torch.sinh((shaped + 1) / 2 * math.asinh(TOP / SCALE))


def firm(picture: Tensor, width: int = 0) -> Tensor:
    """Where one can stand and step to every side: the steepest of a cell's up to four steps ≤ STEEPEST; [B, H, W]."""
    h = heights(picture, width)
    steep = torch.zeros_like(h)
    for axis in (1, 2):
        step = h.diff(dim=axis).abs() / CELL
        for first in (0, 1):  # a step belongs to the cells at both its ends
            ends = steep.narrow(axis, first, step.shape[axis])
            torch.maximum(ends, step, out=ends)
    return steep <= STEEPEST


def walkable(picture: Tensor, width: int = 0) -> Tensor:
    """The share of cells that can be walked, in [0, 1]."""
    return firm(picture, width).to(picture.dtype).mean((1, 2))


def crossable(picture: Tensor, width: int = 0) -> Tensor:
    """1 where such cells, side by side, lead from the left edge to the right one, else 0."""
    return torch.tensor([float(_leads_across(cells.numpy())) for cells in firm(picture, width)], dtype=picture.dtype)


def _leads_across(cells: np.ndarray) -> bool:
    regions, _ = label(cells)  # numbered from 1; 0 is what cannot be walked
    return bool(np.intersect1d(regions[:, 0], regions[:, -1]).max(initial=0))
