"""What is checked about terrain, on maps small enough to do by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from posttrain.rewards.terrain import CELL, SCALE, STEEPEST, TOP, crossable, firm, heights, walkable


def picture(metres: list[list[float]]) -> Tensor:
    """What the model would say of these heights."""
    h = torch.tensor(metres, dtype=torch.float64)
    return (2 * torch.asinh(h / SCALE) / math.asinh(TOP / SCALE) - 1).view(1, -1)


def test_heights_undo_what_the_model_is_shown() -> None:
    # −1 is the ground and 1 is 22.17 m; 0 is half of asinh(221.7) = 6.0944: 0.1 sinh(3.0472) = 1.0504 m.
    assert heights(torch.tensor([[-1.0, 0.0, 1.0, 2.0]]))[0].flatten().tolist() == pytest.approx(
        [0.0, 1.0504, TOP, TOP], rel=1e-4)
    assert heights(torch.zeros(2, 6), 3).shape == (2, 2, 3)


def test_a_cell_is_firm_where_its_steepest_step_is() -> None:
    # Cells are 0.1 m apart, so a step of 0.02 m is a slope of 0.2 and one of 0.05 m a slope of 0.5 > 0.3.
    # The 0.05 between columns 1 and 2 of the first row spoils the cells at both its ends; so does the 0.06 between the
    # rows of column 2, whose upper end is spoilt already: three of six remain.
    assert (CELL, STEEPEST) == (0.1, 0.3)
    shown = picture([[0.0, 0.02, 0.07], [0.0, 0.01, 0.01]])
    assert firm(shown, 3)[0].tolist() == [[True, False, False], [True, True, False]]
    assert walkable(shown, 3).tolist() == [0.5]


def test_a_way_across_goes_round_what_is_steep() -> None:
    """A post in the middle of the upper edge leaves the lower row; a wall from edge to edge leaves no way."""
    flat = [[0.0] * 5 for _ in range(4)]
    post = [[0.0, 0.0, 1.0, 0.0, 0.0], *flat[1:]]
    wall = [[0.0, 0.0, 1.0, 0.0, 0.0] for _ in range(4)]
    shown = torch.cat([picture(each) for each in (flat, post, wall)])
    assert crossable(shown, 5).tolist() == [1.0, 1.0, 0.0]
    # The post spoils itself and the cells left, right and below: 16 of 20.  The wall spoils three columns of five.
    assert walkable(shown, 5).tolist() == [1.0, 0.8, pytest.approx(0.4)]
