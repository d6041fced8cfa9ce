"""What a rollout engine offers: completions of prompts, with the log-probability of every sampled token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from posttrain.core.errors import UserError
from posttrain.core.types import Count, Fraction, Natural, NonNegative, check_ranges


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    Recorded log-probabilities are those of p = softmax(logits / temperature) over all tokens, which the training pass
    computes too.  Tokens are drawn from q:

        q ∝ 1[kept] softmax((logits + bias) / temperature)

    where what completes one of `bad_words` has bias −∞, and top-k, then top-p, then min-p choose the kept tokens by
    their probability with bias.  At temperature 0 the likeliest token with bias is taken, and p has temperature 1.
    """

    max_new_tokens: Count
    temperature: NonNegative = 1.0  # 0: the likeliest token
    top_p: Fraction = 1.0  # the smallest set with this share of the probability; 1: all
    top_k: Natural = 0  # the k likeliest; 0: all
    min_p: Fraction = 0.0  # those at least this times as likely as the likeliest; 0: all
    bad_words: tuple[tuple[int, ...], ...] = ()  # tokens that no completion holds in a row, the prompt's end included
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token, what is added to its logit before temperature)
    stop_tokens: tuple[int, ...] = ()  # end a completion, and belong to it
    stop_strings: tuple[str, ...] = ()  # end a completion at the token that completes one

    def __post_init__(self) -> None:
        check_ranges(self)
        for word in self.bad_words:
            if not word or min(word) < 0:
                raise UserError(f"bad_words = {word!r}: must be one or more token ids ≥ 0")
        for token, bias in self.logit_bias:
            if token < 0 or not math.isfinite(bias):
                raise UserError(f"logit_bias = {(token, bias)!r}: must be a token id ≥ 0 and a finite number")

    @property
    def reshapes(self) -> bool:
        """Whether q may differ from p, at a temperature above 0."""
        return bool(self.top_p < 1 or self.top_k or self.min_p or self.bad_words or self.logit_bias)

    @property
    def memory(self) -> int:
        """Tokens before a new one that decide which tokens are allowed."""
        return max((len(word) - 1 for word in self.bad_words), default=0)


@dataclass(frozen=True)
class Completions:
    """Rows in the order of prompts, the samples of one prompt side by side.  R rows, N tokens at most."""

    tokens: Tensor  # [R, N] long; beyond a row's length 0, or what else its canvas holds
    logp: Tensor  # [R, N] log-probability of each token at the sampling temperature, 0 beyond
    log_kept: Tensor  # [R, N] log p − log q: without bias the log of the mass that q may draw from; 0 where q = p
    lengths: Tensor  # [R] long
    finished: Tensor  # [R] bool: stopped by itself; False: cut off at max_new_tokens
    when: Tensor | None = None  # [R, N] long: the pass that decided each token of a canvas; None: one after another
    choice: Tensor | None = None  # [R, N] long: what the schedule chose for that pass


def empty_completions(tokens: Tensor) -> Completions:
    """Nothing sampled yet into `tokens` [R, N]: every row unfinished and, until it ends, as long as the limit."""
    rows, limit = tokens.shape
    logp, log_kept = torch.zeros(2, rows, limit)
    return Completions(tokens, logp, log_kept, torch.full((rows,), limit), torch.zeros(rows, dtype=torch.bool))


class Samples(Protocol):
    """Generates."""

    def generate(self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling,
                 generator: torch.Generator) -> Completions:
        """`samples` completions of each prompt; the same generator state gives the same tokens.

        Raises:
            UserError: if a prompt and `max_new_tokens` do not fit in the context, or no row in the memory.
        """
        ...


class Engine(Samples, Protocol):
    """Generates with the weights of the newest `update`."""

    cache_bytes: int  # what rows alive at a time may take: keys, values, logits; 0: not counted

    def update(self) -> None:
        """Take over the policy's present weights."""
        ...

    def keep_to(self, cache_bytes: int) -> None:
        """Give the rows that are alive at a time, with their prompts, at most so much memory.

        Raises:
            UserError: where memory is not counted.
        """
        ...

    def rows_at_once(self, prompts: int, samples: int, prompt_tokens: int, sampling: Sampling) -> int:
        """How many rows, of `samples` to each of `prompts` prompts of so many tokens at most, can be alive at a time.

        Raises:
            UserError: if not a single one can.
        """
        ...
