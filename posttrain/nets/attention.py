"""Attention of every packed token over its ancestors and its own past, in memory that grows with tokens alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from posttrain.nets.precision import at_least_fp32
from posttrain.nets.tree import Look, Tree

SCORE_BYTES = 16 << 20  # of fp32 scores at a time
LEAST = -1e30  # stands for the largest score of a query that sees nothing


def tree_attention(q: Tensor, k: Tensor, v: Tensor, tree: Tree, reach: int | None = None) -> Tensor:
    """q [n, H, D], k, v [n, K, D], H / K queries to each key -> [n, H, D].

    reach: how many tokens a query sees, itself included; None: all.
    """
    out: Tensor = _TreeAttention.apply(q * q.shape[-1]**-0.5, k, v, tree.looks(reach))  # type: ignore[no-untyped-call]
    return out


class _TreeAttention(torch.autograd.Function):
    """One softmax over several sets of keys, each by itself, then joined by its log-sum-exp (Dao et al., 2205.14135).

    Scores are computed again in the backward pass, so none is kept.  Inside, tensors are [K, n, R, D] and [K, n, D]:
    then all queries that share their keys are one matrix, and no key is copied for any of them.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, looks: tuple[Look, ...]) -> Tensor:
        heads, (n, kv_heads, width) = q.shape[1], k.shape
        q = q.view(n, kv_heads, -1, width).transpose(0, 1).contiguous()
        k, v = k.transpose(0, 1).contiguous(), v.transpose(0, 1).contiguous()
        out = at_least_fp32(torch.empty_like(q))
        lse = out.new_empty(out.shape[:3])
        for look in looks:
            own, own_lse = _attend(look, q, k, v)
            at, at_lse = out[:, look.queries], lse[:, look.queries]
            if look.own:
                at.copy_(own)
                at_lse.copy_(own_lse)
            else:
                both = torch.logaddexp(at_lse, own_lse)
                at.mul_((at_lse - both).exp_()[..., None]).addcmul_(own, (own_lse - both).exp_()[..., None])
                at_lse.copy_(both)
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.looks = looks
        return out.transpose(0, 1).reshape(n, heads, width)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        g = grads[0].view(q.shape[1], len(q), *q.shape[2:]).transpose(0, 1).contiguous()
        dot = torch.linalg.vecdot(at_least_fp32(g), at_least_fp32(out))
        totals = [at_least_fp32(torch.zeros_like(x)) for x in (q, k, v)]
        for look in ctx.looks:
            for total, at, part in zip(totals, (look.queries, look.keys, look.keys),
                                       _attend_backward(look, q, k, v, g, lse, dot), strict=True):
                total[:, at] += part
        dq, dk, dv = (x.transpose(0, 1).to(q.dtype) for x in totals)
        return dq.reshape(q.shape[1], -1, q.shape[3]), dk, dv, None


def _attend(look: Look, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """What its queries take from its keys alone: [K, n, R, D], and the log of the sum of exp(score), [K, n, R]."""
    q_, k_, v_ = _pad_queries(look, q), _pad_keys(look, k), _pad_keys(look, v)
    out, lse = at_least_fp32(torch.empty_like(q_)), at_least_fp32(q_.new_empty(q_.shape[:-1]))
    for rows, keys in _blocks(look, q_):
        s = _scores(look, q_, k_, rows, keys)
        top = s.amax(-1, keepdim=True).clamp_(min=LEAST)
        p = s.sub_(top).exp_()
        total = p.sum(-1, keepdim=True)
        torch.div(_product(p.to(q.dtype), v_[:, :, keys]), total.clamp(min=1e-30), out=out[:, :, rows])
        lse[:, :, rows] = (total.log_() + top)[..., 0]
    return look.query_level.unpad(out, 1), look.query_level.unpad(lse, 1)


def _attend_backward(look: Look, q: Tensor, k: Tensor, v: Tensor, g: Tensor, lse: Tensor, dot: Tensor
                     ) -> tuple[Tensor, Tensor, Tensor]:
    """This look's part of the gradients: g [K, n, R, D] of the output; dot = g · output [K, n, R]."""
    q_, g_, lse_, dot_ = (_pad_queries(look, x) for x in (q, g, lse, dot))
    k_, v_ = _pad_keys(look, k), _pad_keys(look, v)
    dq, dk, dv = torch.empty_like(q_), at_least_fp32(torch.zeros_like(k_)), at_least_fp32(torch.zeros_like(v_))
    for rows, keys in _blocks(look, q_):
        p = _scores(look, q_, k_, rows, keys).sub_(lse_[:, :, rows, :, None]).exp_()
        dv[:, :, keys] += _product(_flat(p.to(q.dtype)).mT, _flat(g_[:, :, rows]))
        ds = _product(g_[:, :, rows], v_[:, :, keys].mT)  # = ∂L / ∂p
        ds = p.mul_(ds - dot_[:, :, rows, :, None]).to(q.dtype)
        dq[:, :, rows] = _product(ds, k_[:, :, keys])
        dk[:, :, keys] += _product(_flat(ds).mT, _flat(q_[:, :, rows]))
    return look.query_level.unpad(dq, 1), look.key_level.unpad(dk, 1), look.key_level.unpad(dv, 1)


def _pad_queries(look: Look, x: Tensor) -> Tensor:
    return look.query_level.pad(x[:, look.queries], 1)


def _pad_keys(look: Look, x: Tensor) -> Tensor:
    return look.key_level.pad(x[:, look.keys], 1)


def _blocks(look: Look, q: Tensor) -> Iterator[tuple[slice, slice]]:
    """Queries whose scores fit in memory at a time, and the keys that any of them can see."""
    width, keys = q.shape[2], look.key_level.width
    step = max(1, SCORE_BYTES // max(1, 4 * keys * q[:, :, 0, :, 0].numel()))
    for start in range(0, width, step):
        stop = min(start + step, width)
        yield slice(start, stop), slice(0, stop if look.own else keys)


def _scores(look: Look, q: Tensor, k: Tensor, rows: slice, keys: slice) -> Tensor:
    """[K, G, m, R, keys], −∞ where a query may not look."""
    s = at_least_fp32(_product(q[:, :, rows], k[:, :, keys].mT))
    return s if look.bias is None else s.add_(look.bias[:, rows, None, keys])


def _flat(x: Tensor) -> Tensor:
    """[K, G, m, R, X] -> [K, G, m R, X]."""
    return x.flatten(2, 3)


def _product(x: Tensor, y: Tensor) -> Tensor:
    """One matrix product for each key head and segment: x [K, G, m, R, A] or [K, G, m R, A], y [K, G, A, B]."""
    out = torch.bmm(x.reshape(-1, x.shape[2:-1].numel(), x.shape[-1]), y.flatten(0, 1))
    return out.view(*x.shape[:-1], y.shape[-1])
