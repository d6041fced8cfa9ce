"""What a rollout engine offers: completions of prompts, with the log-probability of every sampled token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from posttrain.core.types import Count, Fraction, Natural, NonNegative, check_ranges


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn.  Log-probabilities are those of softmax(logits / temperature) over all tokens."""

    max_new_tokens: Count
    temperature: NonNegative = 1.0  # 0: the likeliest token
    top_p: Fraction = 1.0
    top_k: Natural = 0
    stop_tokens: tuple[int, ...] = ()  # end a completion, and belong to it
    stop_strings: tuple[str, ...] = ()  # end a completion at the token that completes one

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Completions:
    """Rows in the order of prompts, the samples of one prompt side by side.  R rows, N tokens at most."""

    tokens: Tensor  # [R, N] long, 0 beyond a row's length
    logp: Tensor  # [R, N] log-probability of each token at the sampling temperature, 0 beyond
    log_kept: Tensor  # [R, N] log of the mass that top-p and top-k kept: 0 without them
    lengths: Tensor  # [R] long
    finished: Tensor  # [R] bool: stopped by itself; False: cut off at max_new_tokens


class Engine(Protocol):
    """Generates with the weights of the newest `update`."""

    def update(self) -> None:
        """Take over the policy's present weights."""
        ...

    def generate(self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling,
                 generator: torch.Generator) -> Completions:
        """`samples` completions of each prompt; the same generator state gives the same tokens.

        Raises:
            UserError: if a prompt and `max_new_tokens` do not fit in the context.
        """
        ...
