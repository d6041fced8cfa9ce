"""Attention to what many rows share and to what each has for itself, part by part, each with a softmax of its own.

    o = Σ_p exp(z_p − z) o_p,    z = log Σ_p exp(z_p)

o_p is what softmax gives over the keys of part p alone, z_p the log of the sum that it divides by.  No score is ever
written to memory where a fused kernel computes a part, and a prompt's keys are read once for all of its rows.  On
processors, where scores stay in the cache, one softmax over all parts is faster (`Cache.attend`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from posttrain.nets.kernels import Stored
from posttrain.nets.precision import at_least_fp32
from posttrain.rollout.cache import Folds

# query [S, K, n, D], already scaled, keys and values [S, K, N, D], bias [S, 1, n, N] -> o [S, K, n, D], z [S, K, n, 1];
# every query looks at one key at least
Part = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def plain(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A `Part` in torch's basic operations, for every device."""
    scores = at_least_fp32(query @ keys.transpose(-1, -2)) + bias
    z = scores.logsumexp(-1, keepdim=True)
    return (scores - z).exp().to(query.dtype) @ values, z


def fused(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A `Part` in one CUDA kernel, which wants a multiple of 8 keys, and the bias in the type of the query."""
    bias = bias.expand(*query.shape[:3], -1)
    out, z, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(query, keys, values, bias, True, scale=1.0)
    return out, z[:, :, : query.shape[2], None]


def part_on(device: torch.device) -> Part:
    return fused if device.type == "cuda" else plain


def merge(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """o of all parts, from (o_p, z_p) of each."""
    outs, sums = zip(*parts, strict=True)
    share = torch.cat(sums, -1).softmax(-1).unsqueeze(-1).unbind(-2)
    return torch.stack([at_least_fp32(out) * s for out, s in zip(outs, share, strict=True)]).sum(0).to(outs[0].dtype)


def fold_biases(bias: Tensor, folds: Sequence[Folds], widths: Sequence[int], depth: int) -> list[Tensor]:
    """bias [b, 1, 1, Σ N] of one query head -> [S, 1, n, N] of each part; the last is each row's own.

    depth: query heads to a key head.
    """
    *above, own = bias.expand(-1, -1, depth, -1).split(list(widths), -1)
    return [*(fold.fold(part) for fold, part in zip(folds, above, strict=True)), own]


def attend_apart(query: Tensor, above: Sequence[tuple[Stored, Folds]], own: Stored, biases: Sequence[Tensor], part: Part
                 ) -> Tensor:
    """What `Cache.attend` returns: query [b, K, R, D], already scaled, biases from `fold_biases`."""
    parts = []
    for ((keys, values), fold), bias in zip(above, biases, strict=False):
        out, z = part(fold.fold(query), keys, values, bias)
        parts.append((fold.unfold(out), fold.unfold(z)))
    return merge([*parts, part(query, own[0], own[1], biases[-1])])
