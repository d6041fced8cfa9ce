"""Grids that people look at, and what shows collapse."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from posttrain.evaluate.pictures import SCALE, diversity, write_grid


def test_a_grid_shows_each_picture_in_its_place(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pictures = torch.stack([torch.full((4,), -1.0), torch.full((4,), 1.0), torch.tensor([1.0, -1.0, -1.0, 1.0])])
    write_grid(tmp_path / "new" / "grid.png", pictures, 2)
    page = image.open(tmp_path / "new" / "grid.png")
    cell = 2 * SCALE + 2
    assert page.size == (2 * cell, 2 * cell)
    assert page.getpixel((cell // 2, cell // 2)) == 0
    assert page.getpixel((cell + cell // 2, cell // 2)) == 255
    assert [page.getpixel((1 + x * SCALE, cell + 1)) for x in (0, 1)] == [255, 0]


def test_diversity_is_the_mean_distance_within_a_label() -> None:
    # Label 0: pictures (0, 0), (3, 4), (0, 0): distances 5, 0, 5 over √2, mean 10/3/√2.  Label 1: twice the same: 0.
    # A label of one picture says nothing.
    pictures = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [7.0, 7.0], [7.0, 7.0], [1.0, 1.0]])
    label = torch.tensor([0, 0, 0, 1, 1, 2])
    assert diversity(pictures, label) == pytest.approx(10 / 3 / math.sqrt(2) / 2)
    assert diversity(pictures[:1], label[:1]) == 0
