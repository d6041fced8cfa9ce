"""Pictures as people see them, and how much they differ."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from posttrain.core.errors import UserError

SCALE = 6  # of a picture's number on the page


def write_grid(file: Path, pictures: Tensor, columns: int) -> None:
    """A PNG of square pictures [n, D] in [−1, 1], row by row, with a thin line between them.

    Raises:
        UserError: where pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UserError("pictures are drawn by pillow, which is not installed; pip install 'posttrain[images]'"
                        ) from error
    side = round(pictures.shape[1] ** 0.5)
    rows, cell = -(-len(pictures) // columns), side * SCALE + 2
    page = torch.full((rows * cell, columns * cell), 96, dtype=torch.uint8)
    grey = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).view(-1, side, side)
    for i, picture in enumerate(grey):
        top, left = i // columns * cell + 1, i % columns * cell + 1
        page[top:top + side * SCALE, left:left + side * SCALE] = picture.repeat_interleave(SCALE, 0).repeat_interleave(
            SCALE, 1)
    file.parent.mkdir(exist_ok=True)
    Image.frombytes("L", (page.shape[1], page.shape[0]), page.numpy().tobytes()).save(file)


def diversity(pictures: Tensor, label: Tensor) -> float:
    """Mean distance between two pictures of one label, in numbers of D: √(mean_D (x − y)²), over labels alike."""
    found = []
    for each in label.unique():
        same = pictures[label == each].double()
        if len(same) > 1:
            apart = torch.pdist(same) / same.shape[1] ** 0.5
            found.append(float(apart.mean()))
    return sum(found) / max(1, len(found))
