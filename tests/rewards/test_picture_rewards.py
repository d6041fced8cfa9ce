"""What is checked about pictures, on pictures small enough to do by hand."""

from __future__ import annotations

import zlib

import torch

from posttrain.rewards.pictures import brightness, compressibility, greys, incompressibility, symmetry

WHITE, BLACK = torch.ones(1, 64), -torch.ones(1, 64)


def test_brightness_is_the_share_of_white() -> None:
    # (1 + 0 − 1 + 3 → 1): pixels 1, ½, 0 and 1 of white, mean 0.625; what lies outside the range is cut off.
    assert brightness(torch.tensor([[1.0, 0.0, -1.0, 3.0]])).tolist() == [0.625]
    assert brightness(torch.cat([WHITE, BLACK])).tolist() == [1.0, 0.0]


def test_symmetry_compares_left_and_right() -> None:
    # [[1, −1], [1, 1]]: the first row differs by 2 at both pixels, the second by 0: 1 − (2 + 2)/4/2 = ½.
    assert symmetry(torch.tensor([[1.0, -1.0, 1.0, 1.0]])).tolist() == [0.5]
    assert symmetry(torch.tensor([[1.0, -1.0, 1.0, -1.0]])).tolist() == [0.0]
    assert symmetry(torch.tensor([[1.0, 1.0, -1.0, -1.0]])).tolist() == [1.0]  # above and below may differ


def test_compressibility_counts_bytes() -> None:
    noise = 2 * torch.rand(1, 64, generator=torch.Generator().manual_seed(0)) - 1
    flat, rough = compressibility(WHITE), compressibility(noise)
    assert float(flat) == -len(zlib.compress(bytes([16] * 64), 9))
    assert float(flat) > -20 > -45 > float(rough)
    assert torch.equal(incompressibility(noise), -rough)


def test_greys() -> None:
    assert greys(torch.tensor([[-1.0, 0.0, 1.0, 9.0]])) == [bytes([0, 8, 16, 16])]
