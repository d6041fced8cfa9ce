"""Attention over a token tree in one fused kernel, which skips whatever nobody looks at (FlexAttention, 2412.05496).

The packed tokens of all levels are one sequence; who looks at whom is said by a function of two of their indices.  No
padding is computed and no score is written to memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from posttrain.nets.tree import Tree

Look = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # batch, head, query, key -> whether it may look at it


def who_looks(tree: Tree, reach: int | None = None) -> Look:
    """Every packed token looks at its ancestors and its own past, itself included, and no further than `reach`."""
    segments = [level.slots // level.width for level in tree.levels]
    rank = torch.cat([torch.full_like(own, i) for i, own in enumerate(segments)])  # [n], each token's level
    segment, position = torch.cat(segments), tree.positions  # [n]
    ancestor = torch.stack([torch.cat([  # [levels, n]: its segment in each level, −1 below its own
        own // (level.segments // above.segments) if i <= j else torch.full_like(own, -1)
        for j, (level, own) in enumerate(zip(tree.levels, segments, strict=True))])
        for i, above in enumerate(tree.levels)])

    def look(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
        near = (ancestor[rank[key], query] == segment[key]) & (position[key] <= position[query])
        return near if reach is None else near & (position[key] > position[query] - reach)

    return look


def block_mask(tree: Tree, reach: int | None = None) -> BlockMask:
    """`who_looks` with the blocks that nobody looks at left out; made once for a tree."""
    if ("blocks", reach) not in tree.made:
        n, device = len(tree.ids), tree.ids.device
        tree.made["blocks", reach] = create_block_mask(who_looks(tree, reach), None, None, n, n, device=device)
    mask: BlockMask = tree.made["blocks", reach]
    return mask


@cache
def compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)


def flex_tree_attention(q: Tensor, k: Tensor, v: Tensor, tree: Tree, reach: int | None = None) -> Tensor:
    """What `tree_attention` returns: q [n, H, D], k, v [n, K, D] -> [n, H, D]."""
    attend = compiled() if q.is_cuda else flex_attention
    query, keys, values = (x.transpose(0, 1)[None] for x in (q, k, v))
    out: Tensor = attend(query, keys, values, block_mask=block_mask(tree, reach), enable_gqa=True)
    return out[0].transpose(0, 1)
