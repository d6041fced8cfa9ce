"""Token trees: levels by hand, and attention over a tree against plain causal attention of every sequence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from posttrain.nets.transformer import tree_attention
from posttrain.nets.tree import Tree, build_level, common_prefix, look_bias

HEADS, KV_HEADS, WIDTH = 4, 2, 3


def test_level_by_hand() -> None:
    # Segments of 2, 0 and 3 tokens, beginning at positions 4, 4 and 7; padded to width 3.
    level, ids = build_level([[10, 11], [], [12, 13, 14]], [4, 4, 7])
    assert ids == [10, 11, 12, 13, 14]
    assert level.positions.tolist() == [[4, 5, -1], [-1, -1, -1], [7, 8, 9]]
    assert level.slots.tolist() == [0, 1, 6, 7, 8]
    packed = torch.arange(1.0, 6.0)
    assert level.pad(packed).tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5]]
    assert torch.equal(level.unpad(level.pad(packed)), packed)


def test_bias_by_hand() -> None:
    # One ancestor with keys at 0 and 1, owning two segments: positions (2, 3) and (2, none).
    bias = look_bias(torch.tensor([[2, 3], [2, -1]]), [torch.tensor([[0, 1]]), torch.tensor([[2, 3], [2, -1]])])
    sees = (bias[:, 0, :, 0] == 0).long().tolist()
    assert sees == [[[1, 1, 1, 0], [1, 1, 1, 1]], [[1, 1, 1, 0], [1, 0, 0, 0]]]  # the padded query sees the first key


def test_common_prefix() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 4], [1, 2, 3, 9]]) == 2
    assert common_prefix([[1, 2, 3], [9, 2, 3]]) == 0
    assert common_prefix([[1, 2], [1, 2]]) == 1  # each keeps a token of its own
    assert common_prefix([[7, 8, 9]]) == 2
    assert common_prefix([[7], [7, 8]]) == 0


@st.composite
def trees(draw: st.DrawFn) -> tuple[int, list[int], list[list[int]]]:
    """Lengths: of the root, of each middle segment, and of each middle segment's leaves (as many for each)."""
    fan_out = draw(st.integers(1, 3))
    middle = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    leaf = st.lists(st.integers(0, 4), min_size=fan_out, max_size=fan_out)
    return draw(st.integers(0, 3)), middle, [draw(leaf) for _ in middle]


@given(trees(), st.integers(0, 1000))
def test_attention_is_causal_attention_of_every_path(case: tuple[int, list[int], list[list[int]]], seed: int) -> None:
    root, middle, leaves = case
    flat = [n for group in leaves for n in group]
    starts = [root + m for m, group in zip(middle, leaves, strict=True) for _ in group]
    levels = [build_level([[0] * root], [0]), build_level([[0] * m for m in middle], [root] * len(middle)),
              build_level([[0] * n for n in flat], starts)]
    tree = Tree(torch.tensor([i for _, ids in levels for i in ids]), tuple(level for level, _ in levels))
    total = root + sum(middle) + sum(flat)
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(total, HEADS, WIDTH, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, total, KV_HEADS, WIDTH, generator=generator, dtype=torch.float64)
    found = tree_attention(q, k, v, tree)

    at_middle, at_leaf = root, root + sum(middle)
    for m, group in zip(middle, leaves, strict=True):
        for n in group:
            path = torch.tensor([*range(root), *range(at_middle, at_middle + m), *range(at_leaf, at_leaf + n)])
            query, key, value = (x[path].transpose(0, 1)[None] for x in (q, k, v))
            expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            assert_close(found[path], expected[0].transpose(0, 1))
            at_leaf += n
        at_middle += m
    assert tree.positions.tolist() == [*range(root), *(root + i for m in middle for i in range(m)),
                                       *(s + i for s, n in zip(starts, flat, strict=True) for i in range(n))]


def test_parents_worked_by_hand() -> None:
    """Shared [1, 2]; prompts [3] and [4, 5]; below the first [6, 7] and nothing, below the second nothing and [8].

    Packed: 1 2 | 3 4 5 | 6 7 8, numbered from 0.
    """
    root, middle = build_level([[1, 2]], [0])[0], build_level([[3], [4, 5]], [2, 2])[0]
    leaf = build_level([[6, 7], [], [], [8]], [3, 3, 4, 4])[0]
    tree = Tree(torch.tensor([1, 2, 3, 4, 5, 6, 7, 8]), (root, middle, leaf))
    assert tree.parents.tolist() == [-1, 0, 1, 1, 3, 2, 5, 4]


def test_parents_without_a_shared_beginning() -> None:
    tree = Tree(torch.tensor([3, 4, 5]), (build_level([[]], [0])[0], build_level([[3], [4]], [0, 0])[0],
                                          build_level([[], [5]], [1, 1])[0]))
    assert tree.parents.tolist() == [-1, -1, 1]
