"""Attention part by part: the same as one softmax over all parts, whoever shares what."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from toy import ARCH

from posttrain.rollout.cache import Cache, Fold, Room, Shape
from posttrain.rollout.cascade import attend_apart, fold_biases, merge, part_on, plain

WIDTH = 5


def test_two_parts_by_hand() -> None:
    """Scores ln 1, ln 3 with values 10, 20 and ln 4 with value 40: (1 · 10 + 3 · 20 + 4 · 40) / 8 = 28.75.

    Alone they give 17.5 with z = ln 4, and 40 with z = ln 4; a third part of no weight, z = −∞, changes nothing.
    """
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    parts = []
    for scores, values in (([0.0, math.log(3)], [10.0, 20.0]), ([math.log(4)], [40.0])):
        keys, value = (torch.tensor(x, dtype=torch.float64).view(1, 1, -1, 1) for x in (scores, values))
        parts.append(plain(one, keys, value, torch.zeros(1, 1, 1, len(scores), dtype=torch.float64)))
    assert_close(torch.stack([out.squeeze() for out, _ in parts]), torch.tensor([17.5, 40.0], dtype=torch.float64))
    assert_close(torch.stack([z.squeeze() for _, z in parts]), torch.tensor([math.log(4)] * 2, dtype=torch.float64))
    assert_close(merge(parts).item(), 28.75)
    assert_close(merge([*parts, (one, -torch.inf * one)]).item(), 28.75)


@pytest.mark.parametrize(("shared", "place"), [(3, [1, 0, 0, 1, 1]), (0, [0, 0, 1, 1]), (3, [0])])
def test_parts_are_one_softmax(shared: int, place: list[int]) -> None:
    """Rows of two prompts of 6 and 4 tokens after the first 3, with 1 to 5 tokens of their own."""
    torch.manual_seed(0)
    shape = Shape(replace(ARCH, heads=6, kv_heads=2), torch.float32, shared=shared, rest=6, limit=12, drawn=0)
    rows, prompts = len(place), max(place) + 1
    cache = Cache(shape, Room(6, 3))
    for store in (cache.root, cache.prompts, cache.rows):
        store.normal_()
    ends, own = torch.tensor([6, 4])[place], torch.arange(rows) % WIDTH + 1
    beyond = torch.cat([torch.arange(-shared, 6) >= ends[:, None], torch.arange(WIDTH) >= own[:, None]], 1)
    bias = torch.zeros(beyond.shape).masked_fill_(beyond, -torch.inf)[:, None, None]
    query, fold, everyone = torch.randn(rows, 2, 3, 8), Fold.of(torch.tensor(place), prompts), Fold(1, rows, None)

    above, mine = cache.seen(1, rows, WIDTH, fold, everyone)
    biases = fold_biases(bias, [those for _, those in above], [*([shared] if shared else []), 6, WIDTH], 3)
    assert_close(attend_apart(query, above, mine, biases, plain), cache.attend(1, query, WIDTH, fold, everyone, bias))


def test_a_processor_has_no_kernel_for_it() -> None:
    assert part_on(torch.device("cpu")) is plain is not part_on(torch.device("cuda"))
