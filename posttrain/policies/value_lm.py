"""A critic for a causal language model: what the text so far is worth, before each token."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from posttrain.core import Batch
from posttrain.nets.precision import at_least_fp32
from posttrain.nets.transformer import Transformer
from posttrain.policies.causal_lm import Sequences, hidden_states, pack, spread

Split = Callable[[Batch, bool], list[Tensor]]


class ValueLM:
    """A transformer of its own under a linear head of zeros, so that it begins by saying 0 of everything."""

    def __init__(self, net: Transformer, split: Split) -> None:
        """split: the policy's, so that what fits in memory there fits here."""
        self.split, self.net = split, net
        self.head = nn.Parameter(at_least_fp32(net.head.new_zeros(net.arch.width)))
        self.module: nn.Module = nn.ModuleDict({"body": net, "head": nn.ParameterList([self.head])})

    def values(self, batch: Batch) -> Tensor:
        """V of the text before each masked token, [B, T]; without gradient, however large the batch."""
        if torch.is_grad_enabled():
            return self._values(batch)
        out = torch.zeros(batch.mask.shape, dtype=self.head.dtype)
        for rows in self.split(batch, False):
            out[rows] = self._values(batch.take(rows))
        return out

    def after(self, batch: Batch) -> Tensor:
        """0: a text that the length limit cut off is graded as it stands."""
        return torch.zeros(len(batch), dtype=self.head.dtype)

    def _values(self, batch: Batch) -> Tensor:
        sequences = batch.payload
        assert isinstance(sequences, Sequences)
        value = at_least_fp32(hidden_states(self.net, pack(sequences, batch.mask))) @ self.head
        return spread(value, batch.mask)
