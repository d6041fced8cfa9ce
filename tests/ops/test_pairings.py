"""Which rows of a group are held against each other."""

import torch

from posttrain import ops


def test_every_two_of_a_group_once() -> None:
    # Groups 7 (rows 0, 2, 3), 1 (rows 1, 4) and 5 (row 5): three pairs, one and none.
    pairs = ops.every_two(torch.tensor([7, 1, 7, 7, 1, 5]), torch.float64)
    found = list(zip(pairs.winner.tolist(), pairs.loser.tolist(), strict=True))
    assert sorted(found) == [(0, 2), (0, 3), (1, 4), (2, 3)]
    assert pairs.weight.tolist() == [1, 1, 1, 1]
    assert pairs.weight.dtype == torch.float64
    assert pairs.share(6).tolist() == [2, 1, 1, 0, 0, 0]


def test_nothing_to_pair() -> None:
    assert len(ops.every_two(torch.tensor([3]), torch.float32).winner) == 0
