"""Attention of every packed token over its ancestors and its own past, in memory that grows with tokens alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from posttrain.nets.precision import at_least_fp32
from posttrain.nets.tree import Level, Tree

SCORE_BYTES = 16 << 20  # of fp32 scores at a time


def tree_attention(q: Tensor, k: Tensor, v: Tensor, tree: Tree, reach: int | None = None) -> Tensor:
    """q [n, H, D], k, v [n, K, D], H / K queries to each key head -> [n, H, D].

    reach: how many tokens a query sees, itself included; None: all.
    """
    out: Tensor = _TreeAttention.apply(q * q.shape[-1]**-0.5, k, v, tree, reach)  # type: ignore[no-untyped-call]
    return out


class _TreeAttention(torch.autograd.Function):
    """Scores are computed some queries at a time, and again in the backward pass, so none is kept.

    Key heads come first inside, [K, n, R, D] and [K, n, D]: then all queries that share an ancestor are one matrix
    without being moved, and no key is copied for any of them.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, tree: Tree, reach: int | None) -> Tensor:
        heads, (n, kv_heads, width) = q.shape[1], k.shape
        q = q.view(n, kv_heads, -1, width).transpose(0, 1).contiguous()
        k, v = k.transpose(0, 1).contiguous(), v.transpose(0, 1).contiguous()
        keys, values = _padded(k, tree), _padded(v, tree)
        outputs = []
        for i, (level, q_) in enumerate(zip(tree.levels, _padded(q, tree), strict=True)):
            out = torch.empty_like(q_)
            for rows, own in _blocks(level, q_, keys[:i]):
                k_, v_ = [*keys[:i], keys[i][:, :, own]], [*values[:i], values[i][:, :, own]]
                parts = _weights(q_[:, :, rows], k_, tree.biases(reach)[i][:, 0, rows]).to(q.dtype)
                out[:, :, rows] = _weighted(parts, v_)
            outputs.append(level.unpad(out, 1))
        ctx.save_for_backward(q, k, v)
        ctx.tree, ctx.reach = tree, reach
        return torch.cat(outputs, 1).transpose(0, 1).reshape(n, heads, width)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tree, (q, k, v) = ctx.tree, ctx.saved_tensors
        keys, values = _padded(k, tree), _padded(v, tree)
        dk, dv = ([at_least_fp32(torch.zeros_like(x)) for x in padded] for padded in (keys, values))
        g = grads[0].view(q.shape[1], len(q), *q.shape[2:]).transpose(0, 1).contiguous()
        dq = []
        for i, (level, q_, g_) in enumerate(zip(tree.levels, _padded(q, tree), _padded(g, tree), strict=True)):
            dq_ = torch.empty_like(q_)
            for rows, own in _blocks(level, q_, keys[:i]):
                at = [slice(None)] * i + [own]
                k_, v_ = ([x[:, :, s] for x, s in zip(padded, at, strict=False)] for padded in (keys, values))
                q_rows, g_rows = q_[:, :, rows], g_[:, :, rows]
                p = _weights(q_rows, k_, tree.biases(reach=ctx.reach)[i][:, 0, rows])
                ds = torch._softmax_backward_data(_scores(g_rows, v_), p, -1, p.dtype).to(q.dtype)
                dq_[:, :, rows] = _weighted(ds, k_)
                for total, weight, x in ((dk, ds, q_rows), (dv, p.to(q.dtype), g_rows)):
                    widths = [y.shape[2] for y in k_]
                    for a, (part, s) in enumerate(zip(weight.split(widths, -1), at, strict=True)):
                        total[a][:, :, s] += _gathered(part, x, total[a].shape[1])
            dq.append(level.unpad(dq_, 1))
        dk_, dv_ = (torch.cat([level.unpad(x, 1) for level, x in zip(tree.levels, total, strict=True)], 1)
                    .transpose(0, 1).to(k.dtype) for total in (dk, dv))
        return torch.cat(dq, 1).transpose(0, 1).reshape(q.shape[1], -1, q.shape[3]), dk_, dv_, None, None


def _padded(x: Tensor, tree: Tree) -> list[Tensor]:
    """[K, n, ...] -> [K, S, N, ...] for every level."""
    return [level.pad(part, 1) for level, part in zip(tree.levels, x.split(tree.sizes, 1), strict=True)]


def _blocks(level: Level, q: Tensor, ancestors: Sequence[Tensor]) -> Iterator[tuple[slice, slice]]:
    """Queries of a level whose scores fit in memory at a time, and the keys of their own segments up to the last."""
    keys = sum(k.shape[2] for k in ancestors) + level.width
    step = max(1, SCORE_BYTES // (4 * keys * q[:, :, 0, :, 0].numel()))
    for start in range(0, level.width, step):
        stop = min(start + step, level.width)
        yield slice(start, stop), slice(0, stop)


def _weights(q: Tensor, keys: Sequence[Tensor], bias: Tensor) -> Tensor:
    """Softmax of the scores, [K, S, m, R, Σ N_a] fp32 or wider; bias [S, m, 1, at least Σ N_a]."""
    scores = _scores(q, keys)
    return torch.softmax(scores.add_(bias[..., : scores.shape[-1]]), -1)


def _scores(x: Tensor, keys: Sequence[Tensor]) -> Tensor:
    """x [K, S, m, R, D] with every key [K, S_a, N_a, D] of its ancestors: [K, S, m, R, Σ N_a] fp32 or wider."""
    return at_least_fp32(torch.cat([_product(x, k.mT) for k in keys], -1))


def _weighted(weights: Tensor, values: Sequence[Tensor]) -> Tensor:
    """Weights [K, S, m, R, Σ N_a] of values [K, S_a, N_a, D]: [K, S, m, R, D]."""
    parts = weights.split([v.shape[2] for v in values], -1)
    products = [_product(w, v) for w, v in zip(parts, values, strict=True)]
    return sum(products[1:], start=products[0])


def _product(x: Tensor, y: Tensor) -> Tensor:
    """x [K, S, m, R, A], y [K, S_a, A, B] -> [K, S, m, R, B]: all rows of an ancestor's segments in one product."""
    out = torch.bmm(x.reshape(y.shape[0] * y.shape[1], -1, x.shape[-1]), y.flatten(0, 1))
    return out.view(*x.shape[:-1], y.shape[-1])


def _gathered(x: Tensor, y: Tensor, segments: int) -> Tensor:
    """x [K, S, m, R, A], y [K, S, m, R, B] -> [K, S_a, A, B]: summed over all rows of an ancestor's segments."""
    x, y = (z.reshape(len(x) * segments, -1, z.shape[-1]) for z in (x, y))
    return torch.bmm(x.mT, y).view(-1, segments, x.shape[-1], y.shape[-1])
