"""Draw tokens from logits, exactly, and know their log-probabilities without another pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from posttrain.rollout.engine import Sampling

BLOCK = 256  # tokens in a block of the two-level search


class Draw(NamedTuple):
    token: Tensor  # [b] long
    logp: Tensor  # [b] at the sampling temperature, over all tokens
    log_kept: Tensor  # [b] log of the kept mass; 0 without truncation


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Draw:
    """One token a row: logits [b, V] (may be overwritten), uniform [b] in [0, 1).

    The row's own number decides, so a draw does not depend on which other rows are alive.
    """
    assert logits.dim() == 2 and uniform.shape == logits.shape[:1], (logits.shape, uniform.shape)
    z = logits.float()
    if sampling.temperature not in (0.0, 1.0):
        z = z / sampling.temperature
    z = z - z.amax(-1, keepdim=True)
    mass = z.exp()
    total = mass.sum(-1)
    if sampling.temperature == 0:
        token, kept = z.argmax(-1), total
    else:
        kept_mass = truncate(mass, sampling)
        token = search(kept_mass, uniform)
        kept = total if kept_mass is mass else kept_mass.sum(-1)
    logp = z.gather(1, token[:, None])[:, 0] - total.log()
    return Draw(token, logp, (kept / total).log())


def truncate(mass: Tensor, sampling: Sampling) -> Tensor:
    """Zero the mass outside top-k, then outside top-p of what is left; mass [b, V] unnormalised."""
    vocabulary = mass.shape[1]
    if not 0 < sampling.top_k < vocabulary and sampling.top_p >= 1:
        return mass
    ordered, index = mass.sort(-1, descending=True)
    if 0 < sampling.top_k < vocabulary:
        ordered[:, sampling.top_k:] = 0
    if sampling.top_p < 1:
        before = ordered.cumsum(-1) - ordered  # the smallest set that reaches top_p: keep while less came before
        beyond = before >= sampling.top_p * ordered.sum(-1, keepdim=True)
        beyond[:, 0] = False  # the likeliest token stays, even where top_p = 0
        ordered[beyond] = 0
    return torch.zeros_like(mass).scatter_(1, index, ordered)


def search(mass: Tensor, uniform: Tensor) -> Tensor:
    """The token at quantile `uniform` of unnormalised mass [b, V], block first and then inside it: no V-wide cumsum."""
    rows, vocabulary = mass.shape
    blocks = F.pad(mass, (0, -vocabulary % BLOCK)).view(rows, -1, BLOCK)
    sums = blocks.sum(-1)
    ends = sums.cumsum(-1)
    at = uniform[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, at, right=True).clamp_(max=ends.shape[1] - 1)
    block = torch.where(sums.gather(1, block) > 0, block, sums.argmax(-1, keepdim=True))  # rounding at the very end
    inner = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0]
    inner_ends = inner.cumsum(-1)
    at = (at - (ends.gather(1, block) - sums.gather(1, block))).clamp_(min=0)
    within = torch.searchsorted(inner_ends, at, right=True).clamp_(max=BLOCK - 1)
    within = torch.where(inner.gather(1, within) > 0, within, inner.argmax(-1, keepdim=True))
    return (block * BLOCK + within)[:, 0]
