"""Compiled attention: torch's gradients, and the same bits whoever attends, in whatever company."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest
import torch
from torch import Tensor

from posttrain.nets.fused import Look
from posttrain.nets.kernels import TOGETHER, Kernels, Store, Uncompiled, compiled
from posttrain.nets.transformer import tree_attention
from posttrain.nets.tree import Tree, build_level

try:
    compiled()
except Uncompiled as why:
    pytest.skip(str(why), allow_module_level=True)

KV = 2
# Heads that are no multiple of a vector, of a tile or of both, and groups that fill no tile, one, or more than one.
SIZES = pytest.mark.parametrize(("head", "group"), [(8, 2), (64, 3), (64, 1), (80, 4), (20, 5), (96, 7)])
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
REACHES = pytest.mark.parametrize("reach", [None, 1, 37])


@pytest.fixture(autouse=True, params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def made(head: int, group: int, dtype: torch.dtype) -> Kernels:
    return compiled(head, group, dtype == torch.bfloat16)


def uneven() -> Tree:
    """What all share, two prompts of which one is no longer than that, and two completions of each: one empty, one
    longer than look together, one of a single token."""
    lengths = [[19], [0, 5], [TOGETHER + 3, 1, 0, 42]]
    starts = [[0], [19, 19], [19, 19, 24, 24]]
    levels, ids = zip(*(build_level([[0] * n for n in own], start) for own, start in zip(lengths, starts, strict=True)),
                      strict=True)
    return Tree(torch.tensor([*chain(*ids)]), levels)


def drawn(tree: Tree, head: int, group: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys, values and a gradient at the result; values lie amid others, as they do in a layer."""
    generator, n = torch.Generator().manual_seed(0), len(tree.ids)
    q, k, v, g = (torch.randn(n, heads, head, generator=generator).to(dtype)
                  for heads in (group * KV, KV, 3 * KV, group * KV))
    return [q.requires_grad_(), k.requires_grad_(), v[:, KV : 2 * KV].requires_grad_(), g]


def stores(tree: Tree, k: Tensor, v: Tensor) -> list[Store]:
    return list(zip(k.detach().split(tree.sizes), v.detach().split(tree.sizes), strict=True))


@TYPES
@REACHES
@SIZES
def test_what_torch_computes_and_its_gradients(head: int, group: int, reach: int | None, dtype: torch.dtype) -> None:
    """In fp32 to the last digits; in bf16 weights and slopes are rounded to 2⁻⁹ of themselves, as torch rounds them."""
    tree = uneven()
    q, k, v, g = drawn(tree, head, group, dtype)
    found = Look.apply(q, k, v, tree, tree.ranges(reach), made(head, group, dtype))
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = tree_attention(*exact, tree, reach)
    pairs = [(found, expected), *zip(torch.autograd.grad(found, (q, k, v), g),
                                     torch.autograd.grad(expected, exact, g.double()), strict=True)]
    for ours, theirs in pairs:
        assert ours.dtype == dtype
        assert (ours - theirs).norm() <= (1e-6 if dtype == torch.float32 else 2**-7) * theirs.norm()


@TYPES
@REACHES
@SIZES
def test_a_token_sees_the_same_alone_and_in_company(head: int, group: int, reach: int | None, dtype: torch.dtype
                                                    ) -> None:
    tree, kernels = uneven(), made(head, group, dtype)
    q, k, v, _ = drawn(tree, head, group, dtype)
    ranges, of = tree.ranges(reach), stores(tree, k, v)
    whole = kernels.look(q, of, ranges)
    for i in range(len(tree.ids)):
        assert torch.equal(kernels.look(q[i : i + 1], of, ranges[i : i + 1])[0], whole[i]), i


@TYPES
@REACHES
@SIZES
def test_who_decodes_sees_what_the_tree_sees(head: int, group: int, reach: int | None, dtype: torch.dtype) -> None:
    """The last completion's tokens, one after the other: 19 tokens are shared, 5 are its prompt's, 42 its own."""
    tree, kernels = uneven(), made(head, group, dtype)
    q, k, v, _ = drawn(tree, head, group, dtype)
    expected = kernels.look(q, stores(tree, k, v), tree.ranges(reach))[-42:]
    kept = [torch.stack([x.detach()[a:b].transpose(0, 1) for x in (k, v)]) for a, b in ((0, 19), (19, 24))]
    root, prompt = ((x[:1], x[1:]) for x in kept)
    own = (torch.zeros(1, KV, 42, head, dtype=dtype), torch.zeros(1, KV, 42, head, dtype=dtype))
    for i in range(42):
        new = torch.cat([x[i - 42].flatten() for x in (q, k, v)])[None].detach()
        found = kernels.attend(new, (None, None), 1e-5, None, head**-0.5, root, prompt, torch.tensor([0]), own,
                               torch.tensor([24]), torch.tensor([i + 1]), reach or 0)
        assert torch.equal(found.view_as(expected[i]), expected[i]), i
