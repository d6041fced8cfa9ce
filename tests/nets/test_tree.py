"""Token trees: levels by hand, and attention over a tree against plain causal attention of every path."""

from __future__ import annotations

from unittest.mock import patch

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from posttrain.nets import attention
from posttrain.nets.attention import tree_attention
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


@settings(max_examples=30)
@given(trees(), st.integers(0, 1000), st.sampled_from([None, 1, 3]), st.sampled_from([1, 200, 1 << 20]))
def test_attention_and_its_gradient_are_those_of_every_path(case: tuple[int, list[int], list[list[int]]], seed: int,
                                                            reach: int | None, score_bytes: int) -> None:
    root, middle, leaves = case
    flat = [n for group in leaves for n in group]
    starts = [root + m for m, group in zip(middle, leaves, strict=True) for _ in group]
    levels = [build_level([[0] * root], [0]), build_level([[0] * m for m in middle], [root] * len(middle)),
              build_level([[0] * n for n in flat], starts)]
    tree = Tree(torch.tensor([i for _, ids in levels for i in ids]), tuple(level for level, _ in levels))
    total = root + sum(middle) + sum(flat)
    sees = torch.zeros(total, total, dtype=torch.bool)
    at_middle, at_leaf = root, root + sum(middle)
    for m, group in zip(middle, leaves, strict=True):
        for n in group:
            path = torch.tensor([*range(root), *range(at_middle, at_middle + m), *range(at_leaf, at_leaf + n)])
            past = torch.ones(len(path), len(path), dtype=torch.bool).tril()
            sees[path[:, None], path] = past if reach is None else past.triu(1 - reach)
            at_leaf += n
        at_middle += m

    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(total, HEADS, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
    k, v = (torch.randn(total, KV_HEADS, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
            for _ in range(2))
    query, key, value = (x.transpose(0, 1)[None] for x in (q, k, v))
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=sees, enable_gqa=True)[0].transpose(0, 1)
    with patch.object(attention, "SCORE_BYTES", score_bytes):  # as many queries at a time as there are, or fewer
        found = tree_attention(q, k, v, tree, reach)
        weight = torch.randn(found.shape, generator=generator, dtype=torch.float64)
        gradients = torch.autograd.grad((weight * found).sum(), (q, k, v))
    assert_close(found, expected)
    assert_close(gradients, torch.autograd.grad((weight * expected).sum(), (q, k, v)))
    assert tree.positions.tolist() == [*range(root), *(root + i for m in middle for i in range(m)),
                                       *(s + i for s, n in zip(starts, flat, strict=True) for i in range(n))]
