"""Who looks at whom in a packed tree, as the fused kernel is told it, against the attention that processors have.

Run without compilation, which needs no GPU and has no backward pass on processors; gradients are those of a plain
softmax under the same mask.
"""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from test_tree import trees
from torch import Tensor
from torch.testing import assert_close

from posttrain.nets.flex import block_mask, flex_tree_attention, who_looks
from posttrain.nets.transformer import attention_on, tree_attention
from posttrain.nets.tree import Tree, build_level

HEADS, KV_HEADS, WIDTH = 4, 2, 8
REACHES = st.sampled_from([None, 1, 3])


def build(root: int, middle: list[int], leaves: list[list[int]]) -> Tree:
    starts = [root + m for m, group in zip(middle, leaves, strict=True) for _ in group]
    levels = [build_level([[0] * root], [0]), build_level([[0] * m for m in middle], [root] * len(middle)),
              build_level([[0] * n for group in leaves for n in group], starts)]
    return Tree(torch.tensor([i for _, ids in levels for i in ids]), tuple(level for level, _ in levels))


def dense(tree: Tree, reach: int | None = None) -> Tensor:
    """[n, n] bool: query and key."""
    n = len(tree.ids)
    query, key = torch.arange(n)[:, None].expand(n, n), torch.arange(n).expand(n, n)
    return who_looks(tree, reach)(query, query, query, key)


def heads(tree: Tree, seed: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(len(tree.ids), h, WIDTH, generator=generator, dtype=dtype) for h in (HEADS, KV_HEADS, KV_HEADS)]


def test_who_looks_by_hand() -> None:
    """A token that all share, two prompts of 1 and 2 tokens more, with answers of 2 and 0, of 1 and 1.

    Packed: 0 | 1, 2 3 | 4 5, 6, 7 at positions 0 | 1, 1 2 | 2 3, 3, 3.
    """
    tree = build(1, [1, 2], [[2, 0], [1, 1]])
    assert tree.positions.tolist() == [0, 1, 1, 2, 2, 3, 3, 3]
    sees = [[0], [0, 1], [0, 2], [0, 2, 3], [0, 1, 4], [0, 1, 4, 5], [0, 2, 3, 6], [0, 2, 3, 7]]
    assert [row.nonzero()[:, 0].tolist() for row in dense(tree)] == sees
    near = [[0], [0, 1], [0, 2], [2, 3], [1, 4], [4, 5], [3, 6], [3, 7]]
    assert [row.nonzero()[:, 0].tolist() for row in dense(tree, 2)] == near


@given(trees(), REACHES, st.integers(0, 1000))
def test_gradients_under_the_mask_are_those_of_attention_on_processors(
        case: tuple[int, list[int], list[list[int]]], reach: int | None, seed: int) -> None:
    tree = build(*case)
    mine, theirs = (heads(tree, seed, torch.float64) for _ in range(2))
    for x in (*mine, *theirs):
        x.requires_grad_()
    found = tree_attention(*theirs, tree, reach)
    q, k, v = (x.transpose(0, 1)[None] for x in mine)
    masked = F.scaled_dot_product_attention(q, k, v, dense(tree, reach), enable_gqa=True)[0].transpose(0, 1)
    assert_close(masked, found)
    for x in (masked, found):
        x.square().sum().backward()
    assert_close([x.grad for x in mine], [x.grad for x in theirs])


@pytest.mark.parametrize("reach", [None, 3])
def test_one_kernel_is_attention_level_by_level(reach: int | None) -> None:
    """More than 128 tokens, so that there are blocks that nobody looks at."""
    tree = build(30, [40, 30], [[60, 50, 70], [45, 1, 0]])
    q, k, v = heads(tree, 0, torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks to be compiled
        found = flex_tree_attention(q, k, v, tree, reach)
    assert_close(found, tree_attention(q, k, v, tree, reach))
    assert block_mask(tree, reach) is block_mask(tree, reach)
    assert block_mask(tree, reach).sparsity() > 0


def test_the_device_decides() -> None:
    assert attention_on(torch.device("cpu")) is tree_attention
    assert attention_on(torch.device("cuda")) is flex_tree_attention
