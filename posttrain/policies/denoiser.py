"""The contract of a masked-diffusion model: a text with masked tokens in, a prediction of each of them out.

Any network that is `Denoiser` can be trained, sampled and scored: LLaDA and its like need forward(ids) -> logits, one
prediction for each token, made in sight of all others, and a token that means "masked".
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from posttrain.core.errors import UserError
from posttrain.nets.bidirectional import hidden_states
from posttrain.nets.precision import at_least_fp32
from posttrain.nets.transformer import Transformer

NEVER = -1e30  # the logit of the mask: no prediction, and yet a number, so that p log p is 0


class Denoiser(Protocol):
    """Predicts masked tokens in sight of all others."""

    mask_token: int
    context: int  # longest sequence, tokens
    vocabulary: int

    @property
    def module(self) -> nn.Module:
        """Everything trainable."""
        ...

    def logits(self, ids: Tensor, present: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Logits of the tokens at these places, [n, V] fp32 or wider, with gradient; NEVER at the mask itself.

        ids [B, W] long; present [B, W] bool, padding is absent and seen by nobody; row, column [n] long.
        """
        ...


class OwnDenoiser:
    """The library's transformer with full attention."""

    def __init__(self, net: Transformer, mask_token: int) -> None:
        self.net, self.mask_token = net, mask_token
        self.context, self.vocabulary = net.arch.context, net.arch.vocabulary

    @property
    def module(self) -> nn.Module:
        return self.net

    def logits(self, ids: Tensor, present: Tensor, row: Tensor, column: Tensor) -> Tensor:
        hidden = hidden_states(self.net, ids, present)[row, column].to(self.net.head.dtype)
        return without(at_least_fp32(hidden @ self.net.head.t()), self.mask_token)


class TransformersDenoiser:
    """A bidirectional model of transformers, or any module whose forward takes ids and gives `.logits` [B, W, V].

    Padding needs `attention_mask` among what its forward takes; a model without it is given rows of one length at a
    time.  Dropout is off: old and new scores must agree.

    Raises:
        UserError: where the model does not see later tokens, or has no such mask token.
    """

    def __init__(self, model: Any, mask_token: int, context: int = 0) -> None:
        """context: longest sequence; 0: as its configuration says."""
        self.model, self.mask_token = model.eval(), mask_token
        self.context = context or int(model.config.max_position_embeddings)
        self.vocabulary = int(model.config.vocab_size)
        self.masks_padding = "attention_mask" in inspect.signature(model.forward).parameters
        if not 0 <= mask_token < self.vocabulary:
            raise UserError(f"policy: mask_token_id = {mask_token} is not of its vocabulary, which has "
                            f"{self.vocabulary}")
        if not self._sees_later_tokens():
            raise UserError(f"policy: {type(model).__name__} does not see later tokens, so it cannot fill in masks")

    @property
    def module(self) -> nn.Module:
        module: nn.Module = self.model
        return module

    def logits(self, ids: Tensor, present: Tensor, row: Tensor, column: Tensor) -> Tensor:
        if self.masks_padding:
            every = self.model(ids, attention_mask=present.long()).logits
            return without(at_least_fp32(every[row, column]), self.mask_token)
        lengths = present.sum(1)
        found = at_least_fp32(next(self.model.parameters()).new_zeros(len(row), self.vocabulary))
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            every = self.model(ids[rows, :length]).logits
            asked = (lengths[row] == length).nonzero()[:, 0]
            found = found.index_put((asked,), at_least_fp32(every[torch.searchsorted(rows, row[asked]), column[asked]]))
        return without(found, self.mask_token)

    @torch.no_grad()
    def _sees_later_tokens(self) -> bool:
        ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]]) % self.vocabulary
        first, second = self.model(ids).logits[:, 0]
        return not torch.equal(first, second)


def without(logits: Tensor, token: int) -> Tensor:
    """[n, V] with NEVER at that token."""
    return logits.index_fill(1, torch.tensor([token]), NEVER)
