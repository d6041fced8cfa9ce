"""The same transformer with every token in sight of every other: what a masked-diffusion model predicts with."""

from __future__ import annotations

import torch
from torch import Tensor

from posttrain.nets.transformer import Transformer
from posttrain.nets.tree import attend


def hidden_states(net: Transformer, ids: Tensor, present: Tensor) -> Tensor:
    """Hidden states of all tokens, [B, W, d] fp32 or wider: ids [B, W] long, present [B, W] bool.

    Nothing looks at an absent token, and what is returned for one means nothing.
    """
    rows, width = ids.shape
    bias = torch.zeros(present.shape).masked_fill_(~present, -torch.inf)[:, None, None, None, :]

    def look(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kv_heads, size = k.shape[1:]
        query = (q * size**-0.5).view(rows, width, kv_heads, -1, size)
        keys, values = (x.view(rows, width, kv_heads, size).transpose(1, 2) for x in (k, v))
        return attend(query, [keys], [values], bias).reshape(rows * width, -1, size)

    by = net.arithmetic
    attend_ = net.turned(torch.arange(width).repeat(rows), look, by)
    return net.last(net.body(ids.flatten(), attend_, by)).view(rows, width, -1)
