"""What a language model offers beside scoring, whichever code runs it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from posttrain.core import Batch, Critic, Policy, Score
from posttrain.core.policy import Predictions
from posttrain.rollout.engine import Engine

Decode = Callable[[list[int]], str]  # token ids to text


class Adapters(NamedTuple):
    """LoRA adapters to train instead of the weights: W + (α / rank) B A with α = 2 · rank."""

    rank: int = 0  # 0: none
    seed: int = 0  # of A; B is 0


class LanguagePolicy(Policy, Protocol):
    """A policy over tokens that came from a Hugging Face folder."""

    tokenizer: Any
    budget: int  # tokens of a micro-batch
    context: int  # longest sequence, tokens

    def engine(self, decode: Decode) -> Engine:
        """What samples from it; the first `update` has been made."""
        ...

    def initial(self) -> Policy:
        """The policy as it was before training, frozen; with adapters at no cost in memory."""
        ...

    def anchor(self) -> Policy:
        """A frozen fp32 copy of the policy as it was before training, for the method to move.

        Raises:
            UserError: where adapters are trained instead of the weights.
        """
        ...

    def critic(self) -> Critic:
        """The policy's own body before training with a head that says 0 of every state.

        Raises:
            UserError: for an architecture without a fast path.
        """
        ...

    def weights(self) -> dict[str, Tensor]:
        """The present weights under Hugging Face's names, adapters folded in."""
        ...

    def save(self, target: Path) -> Path:
        """A new Hugging Face folder: weights, adapters folded in and also apart, configuration, tokenizer.

        Raises:
            UserError: if `target` exists.
        """
        ...


class WithoutAdapters:
    """The reference of a LoRA run: the same weights, adapters off, no second copy."""

    def __init__(self, policy: Policy, adapters_off: Callable[[], AbstractContextManager[Any]]) -> None:
        self.policy, self.adapters_off = policy, adapters_off
        self.decision, self.module, self.split = policy.decision, policy.module, policy.split

    def log_prob(self, batch: Batch) -> Tensor:
        return self.score(batch).log_prob

    def score(self, batch: Batch, entropy: bool = False) -> Score:
        with torch.no_grad(), self.adapters_off():
            return self.policy.score(batch, entropy)

    def predict(self, batch: Batch) -> Predictions:
        """Every row at once, under no gradient; adapters are off while the body runs, and the head has none."""
        with torch.no_grad(), self.adapters_off():
            return self.policy.predict(batch)
