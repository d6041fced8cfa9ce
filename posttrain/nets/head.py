"""Log-probabilities of given tokens, without ever holding [tokens × vocabulary] logits for a whole batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from posttrain.nets.precision import at_least_fp32

CHUNK_BYTES = 64 << 20  # of logits at a time
KEEP_BYTES = 512 << 20  # probabilities kept for the backward pass up to this size; beyond it they are computed again


def token_log_prob(hidden: Tensor, weight: Tensor, target: Tensor, temperature: float = 1.0,
                   entropy: bool = False) -> tuple[Tensor, Tensor | None]:
    """log p and entropy of softmax(h Wᵀ / temperature) at each target: hidden [n, d], weight [V, d], target [n].

    Returns [n] and [n] (nats; None unless asked for), fp32 or wider, with gradient to both.  Where the weight carries
    a buffer `main_grad` [V, d], its gradient is added there instead of being returned to autograd.
    """
    assert hidden.dim() == 2 and target.shape == hidden.shape[:1], (hidden.shape, target.shape)
    logp, ent = _TokenLogProb.apply(hidden, weight, target, temperature, entropy)  # type: ignore[no-untyped-call]
    return logp, ent if entropy else None


class _Softmax(NamedTuple):
    probability: Tensor  # [n, V]
    log_prob: Tensor  # [n], of the target
    entropy: Tensor  # [n]; zeros unless asked for


def _softmax(h: Tensor, weight: Tensor, target: Tensor, temperature: float, entropy: bool) -> _Softmax:
    z = at_least_fp32(h @ weight.t())
    if temperature != 1.0:
        z /= temperature
    z -= z.amax(-1, keepdim=True)
    chosen = z.gather(1, target[:, None])[:, 0]
    p = z.exp() if entropy else z.exp_()
    total = p.sum(-1, keepdim=True)
    p /= total
    log_total = total.log()[:, 0]
    spread = log_total - torch.linalg.vecdot(p, z) if entropy else torch.zeros_like(log_total)
    return _Softmax(p, chosen - log_total, spread)


class _TokenLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, temperature: float,
                entropy: bool) -> tuple[Tensor, Tensor]:
        chunk = max(1, CHUNK_BYTES // (4 * len(weight)))
        keep = any(ctx.needs_input_grad) and 4 * len(hidden) * len(weight) <= KEEP_BYTES
        parts = []
        for h, t in zip(hidden.split(chunk), target.split(chunk), strict=True):
            part = _softmax(h, weight, t, temperature, entropy)
            parts.append(part if keep else part._replace(probability=part.log_prob))  # let the large one go
        entropies = torch.cat([part.entropy for part in parts])
        ctx.save_for_backward(hidden, weight, target, entropies, *([p.probability for p in parts] if keep else []))
        ctx.temperature, ctx.entropy, ctx.chunk = temperature, entropy, chunk
        return torch.cat([part.log_prob for part in parts]), entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_logp, grad_entropy = grads
        hidden, weight, target, entropies, *kept = ctx.saved_tensors
        wants_weight = ctx.needs_input_grad[1]
        sink = getattr(weight, "main_grad", None) if wants_weight else None
        grad_weight = at_least_fp32(torch.zeros_like(weight)) if sink is None and wants_weight else sink
        grad_hidden = torch.empty_like(hidden)
        for i, start in enumerate(range(0, len(hidden), ctx.chunk)):
            rows = slice(start, start + ctx.chunk)
            h, t, g = hidden[rows], target[rows, None], grad_logp[rows, None]
            p = kept[i] if kept else _softmax(h, weight, t[:, 0], ctx.temperature, False).probability
            dz = p * -g  # d log p_t / dz = onehot − p
            dz.scatter_add_(1, t, g)
            if ctx.entropy:  # dH / dz = −p (log p + H)
                dz -= p * (p.clamp(min=1e-38).log() + entropies[rows, None]) * grad_entropy[rows, None]
            dz = dz.div_(ctx.temperature).to(weight.dtype)
            grad_hidden[rows] = dz @ weight
            if grad_weight is not None:
                _add_product(grad_weight, dz.t(), h)
        returned = None if sink is not None or grad_weight is None else grad_weight.to(weight.dtype)
        return grad_hidden, returned, None, None, None


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b, in one pass where the types agree."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


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
