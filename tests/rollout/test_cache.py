"""The cache: what it takes in bytes, what fits, and attention over places that are taken and left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from toy import ARCH

from posttrain.core.errors import UserError
from posttrain.rollout import cache
from posttrain.rollout.cache import Cache, Fold, Room, Shape, close_gaps, default_bytes, free_bytes, rest_bias

SHAPE = Shape(replace(ARCH, vocabulary=20), torch.float32, shared=3, rest=6, limit=12, drawn=1200)
# A token's keys and values: 2 · 2 layers · 2 heads · 8 wide · 4 bytes = 256 bytes.  A row's step: 1,200 bytes to draw
# a token, or 16 bytes for 4 heads and 3 + 6 + 12 keys = 1,344 bytes of scores, which is more.  When rows join, each row
# and each prompt has 20 logits of 4 bytes, and 16 bytes for each of 32 numbers before them: 592 bytes, less for both.
TOKEN, STEP = 256, 1344


def test_bytes_by_hand() -> None:
    assert SHAPE.bytes(1, 1) == TOKEN * (3 + 6 + 12) + STEP
    assert SHAPE.bytes(5, 2) == TOKEN * (3 + 2 * 6 + 5 * 12) + 5 * STEP
    assert replace(SHAPE, drawn=2000).bytes(5, 2) == TOKEN * (3 + 2 * 6 + 5 * 12) + 5 * 2000
    assert replace(SHAPE, dtype=torch.bfloat16).bytes(1, 1) == TOKEN // 2 * (3 + 6 + 12) + STEP
    wide = replace(SHAPE, arch=replace(ARCH, vocabulary=1000))  # 4 · 1000 + 16 · 32 bytes of each row and prompt
    assert wide.bytes(5, 2) == TOKEN * (3 + 2 * 6 + 5 * 12) + (5 + 2) * 4512


@pytest.mark.parametrize("room", [Room(1, 1), Room(4, 2), Room(12, 3)])
def test_a_cache_has_the_bytes_it_announces(room: Room) -> None:
    assert Cache(SHAPE, room).bytes == SHAPE.bytes(*room) - room.rows * STEP


def test_as_many_rows_as_fit() -> None:
    """3 prompts, 4 samples: places for ⌈rows / 4⌉ · 2 prompts, but for no more than there are, or than rows."""
    prompts = {1: 1, 2: 2, 3: 2, 4: 2, 5: 3, 8: 3, 11: 3, 12: 3}
    for rows, count in prompts.items():
        exactly = SHAPE.bytes(rows, count)
        assert SHAPE.room(exactly, 3, 4) == Room(rows, count)
        if rows > 1:
            assert SHAPE.room(exactly - 1, 3, 4).rows == rows - 1
    assert SHAPE.room(1 << 40, 3, 4) == Room(12, 3)


def test_not_a_single_row_fits() -> None:
    least = SHAPE.bytes(1, 1)
    assert least == 6720
    assert SHAPE.room(least, 3, 4) == Room(1, 1)
    with pytest.raises(UserError) as caught:
        SHAPE.room(least - 1, 3, 4)
    assert str(caught.value) == "cache_bytes = 6719: one row of 12 new tokens after a prompt of 9 takes 6720"


@pytest.mark.parametrize(("place", "whole"), [
    ([0, 0, 1, 1], True), ([0, 1], True), ([0, 0, 0], True), ([0, 0, 1], False), ([1, 0, 0, 1], False),
    ([2, 0, 1, 2, 2], False),
])
def test_a_fold_is_undone(place: list[int], whole: bool) -> None:
    prompts = max(place) + 1
    fold = Fold.of(torch.tensor(place), prompts)
    assert (fold.index is None) == whole  # nothing to sort, so nothing is copied for it
    x = torch.randn(len(place), 2, 3, 5, generator=torch.Generator().manual_seed(0))
    folded = fold.fold(x)
    assert folded.shape == (prompts, 2, max(map(place.count, place)) * 3, 5)
    assert torch.equal(fold.unfold(folded), x)
    for prompt in range(prompts):  # nothing of another prompt's rows is in there
        own = x[torch.tensor(place) == prompt]
        assert_close(folded[prompt].sum((1, 2)), own.sum((0, 2, 3)))


def test_the_last_ones_fill_gaps() -> None:
    """Of places 0 … 5, those in 0, 3 and 4 leave: 5 goes to 0, and the rest stay."""
    order, old, new = close_gaps(torch.tensor([False, True, True, False, False, True]))
    assert (order.tolist(), old.tolist(), new.tolist()) == ([5, 1, 2], [5], [0])
    order, old, new = close_gaps(torch.tensor([True, True, False]))
    assert (order.tolist(), old.tolist(), new.tolist()) == ([0, 1], [], [])
    assert close_gaps(torch.tensor([False, False]))[0].tolist() == []


def test_moving_rows_and_prompts() -> None:
    store = Cache(SHAPE, Room(4, 2))
    rows, prompts = store.rows.normal_().clone(), store.prompts.normal_().clone()
    store.move_rows(torch.tensor([3, 2]), torch.tensor([0, 1]), 5)
    store.move_prompts(torch.tensor([1]), torch.tensor([0]))
    assert torch.equal(store.rows[:, :, :2, :, :5], rows[:, :, [3, 2], :, :5])
    assert torch.equal(store.rows[:, :, :2, :, 5:], rows[:, :, :2, :, 5:])  # beyond what the rows have: not touched
    assert torch.equal(store.rows[:, :, 2:], rows[:, :, 2:])
    assert torch.equal(store.prompts, prompts[:, :, [1, 1]])


@pytest.mark.parametrize("shared", [0, 3])
@pytest.mark.parametrize("place", [[0, 0, 1, 1], [1, 0, 1], [2, 1, 0, 1, 1]])
def test_attention_is_that_of_each_row_alone(place: list[int], shared: int) -> None:
    """Against a softmax over the keys of one row and one head at a time."""
    generator, shape, prompts = torch.Generator().manual_seed(0), replace(SHAPE, shared=shared), max(place) + 1
    store = Cache(shape, Room(6, 4))
    for whole in (store.root, store.prompts, store.rows):
        whole.normal_(generator=generator)
    query = torch.randn(len(place), 2, 2, 8, generator=generator)
    rests, widths = torch.tensor([6, 2, 4])[torch.tensor(place)], [5, 3, 1, 4, 5][: len(place)]
    bias = torch.cat([rest_bias(rests, shared, 6), torch.zeros(len(place), 1, 1, 5)], -1)
    for row, width in enumerate(widths):
        bias[row, ..., shared + 6 + width:] = -torch.inf
    found = store.attend(1, query, 5, Fold.of(torch.tensor(place), prompts), Fold(1, len(place), None), bias)
    for row, (prompt, rest, width) in enumerate(zip(place, rests.tolist(), widths, strict=True)):
        for head in range(2):
            keys, values = (torch.cat([store.root[1, part, 0, head], store.prompts[1, part, prompt, head, :rest],
                                       store.rows[1, part, row, head, :width]]) for part in (0, 1))
            assert_close(found[row, head], torch.softmax(query[row, head] @ keys.T, -1) @ values)


def test_default_budget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free = free_bytes()
    assert free is None or free > 1 << 20
    for now, expected in ((None, 2 << 30), (1 << 40, 2 << 30), (0, 64 << 20), (4 << 30, 1 << 30), (5 << 30, 1 << 30)):
        monkeypatch.setattr(cache, "free_bytes", lambda now=now: now)
        assert default_bytes() == expected


@pytest.mark.skipif(free_bytes() is None, reason="this system does not tell what is free")
def test_a_control_group_bounds_what_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cache, "CONTROL_GROUP", tmp_path)
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.max").write_text("4000000\n")
    assert free_bytes() == 1000000
    (tmp_path / "memory.max").write_text("2000000\n")
    assert free_bytes() == 0
    (tmp_path / "memory.max").write_text("max\n")
    free = free_bytes()
    assert free is not None and free > 1000000
