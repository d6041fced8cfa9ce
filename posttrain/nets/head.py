"""Log-probabilities of given tokens, without ever holding [tokens × vocabulary] logits for a whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posttrain.nets.precision import at_least_fp32
from posttrain.nets.products import add_product, multiplier
from posttrain.nets.softmax import softmax, softmax_back

CHUNK_BYTES = 64 << 20  # of logits at a time
KEEP_BYTES = 512 << 20  # of logits kept for the backward pass; more are computed again, in chunks


def token_log_prob(hidden: Tensor, weight: Tensor, target: Tensor, temperature: float = 1.0,
                   entropy: bool = False, logits: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """log p and entropy of softmax(h Wᵀ / temperature) at each target: hidden [n, d], weight [V, d], target [n].

    Returns [n] and [n] (nats; None unless asked for), fp32 or wider, with gradient to both.  Where the weight carries
    a buffer `main_grad` [V, d], its gradient is added there instead of being returned to autograd.
    logits: h Wᵀ [n, V] where it is known; the backward pass writes over it.
    """
    assert hidden.dim() == 2 and target.shape == hidden.shape[:1], (hidden.shape, target.shape)
    logp, ent = _TokenLogProb.apply(hidden, weight, target, temperature, entropy, logits)  # type: ignore[no-untyped-call]
    return logp, ent if entropy else None


class _TokenLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, temperature: float,
                entropy: bool, logits: Tensor | None) -> tuple[Tensor, Tensor]:
        size = weight.element_size() * len(weight)
        keep = any(ctx.needs_input_grad) and (logits is not None or size * len(hidden) <= KEEP_BYTES)
        ctx.chunk = max(1, len(hidden) if keep or logits is not None else CHUNK_BYTES // size)
        ctx.temperature, ctx.entropy, ctx.kept = temperature, entropy, []
        logp, entropies = [], []
        made = map(multiplier(weight), hidden.split(ctx.chunk)) if logits is None else [logits]
        for z, t in zip(made, target.split(ctx.chunk), strict=True):
            soft = softmax(z, temperature, along=entropy)
            logp.append(soft.log_prob(z, t, temperature))
            entropies.append(soft.entropy if entropy else torch.zeros_like(soft.total))
            ctx.kept += [(z, soft)] * keep
        ctx.save_for_backward(hidden, weight, target)
        return torch.cat(logp), torch.cat(entropies)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, target = ctx.saved_tensors
        kept, ctx.kept = ctx.kept, []  # they are overwritten: who comes a second time computes them again
        wants_weight = ctx.needs_input_grad[1]
        sink = getattr(weight, "main_grad", None) if wants_weight else None
        grad_weight = at_least_fp32(torch.zeros_like(weight)) if sink is None and wants_weight else sink
        grad_hidden = torch.empty_like(hidden)
        times = None if kept else multiplier(weight)
        for i, start in enumerate(range(0, len(hidden), ctx.chunk)):
            rows = slice(start, start + ctx.chunk)
            h, t, (g, to_entropy) = hidden[rows], target[rows], (grad[rows] for grad in grads)
            if times is None:
                z, soft = kept[i]
            else:
                z = times(h)
                soft = softmax(z, ctx.temperature, along=ctx.entropy)
            dz = softmax_back(z, ctx.temperature, soft, t, g, to_entropy if ctx.entropy else None)
            grad_hidden[rows] = dz @ weight
            if grad_weight is not None:
                add_product(grad_weight, dz, h)
        returned = None if sink is not None or grad_weight is None else grad_weight.to(weight.dtype)
        return grad_hidden, returned, None, None, None, None


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(ids, weight)
        return weight[ids]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None]:
        ids, weight = ctx.saved_tensors
        sink = getattr(weight, "main_grad", None)
        total = at_least_fp32(torch.zeros_like(weight)) if sink is None else sink
        total.index_add_(0, ids, grads[0].to(total.dtype))
        return None, None if sink is not None else total.to(weight.dtype)


def embed(ids: Tensor, weight: Tensor) -> Tensor:
    """Rows of the embedding: ids [n], weight [V, d] -> [n, d]; its gradient is added to `main_grad` if there is one."""
    out: Tensor = _Embed.apply(ids, weight)  # type: ignore[no-untyped-call]
    return out
