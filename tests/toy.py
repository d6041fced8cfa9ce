"""Tiny real parts: a random language model, batches of groups, and updates through the real loop.

`Learner` runs `posttrain.train.loop.update` and keeps every gradient that the optimizer saw.  `TablePolicy` is the
smallest policy there is, one free number for each decision, so that a loss and its gradient can be worked by hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from posttrain.core import Batch, Groups, Method, Models, Score
from posttrain.core.seeds import derive
from posttrain.nets.architecture import Architecture
from posttrain.nets.hf_weights import names, part_sizes
from posttrain.nets.transformer import Transformer
from posttrain.policies.causal_lm import CausalLM, Sequences
from posttrain.train.loop import Measured, Pace, update
from posttrain.train.optim import FlatAdamW

ARCH = Architecture(width=32, layers=2, heads=4, kv_heads=2, head_width=8, hidden=48, vocabulary=97,
                    norm_epsilon=1e-6, rope_theta=10000.0, context=128, tied=True, qkv_bias=False, qk_norm=False)


def toy_model(seed: int = 0, dtype: torch.dtype = torch.float64, **changes: Any) -> Transformer:
    """A random transformer of two layers, width 32 and vocabulary 97; `changes` are fields of its architecture."""
    arch = replace(ARCH, **changes)
    generator = torch.Generator().manual_seed(seed)

    def weight(name: str) -> Tensor:
        part = name.split(".")[-1]
        if part in ("norm", "mlp_norm", "q_norm", "k_norm"):
            width = arch.head_width if part in ("q_norm", "k_norm") else arch.width
            return 1 + 0.1 * torch.randn(width, generator=generator)
        if part == "qkv_bias":
            return 0.1 * torch.randn(sum(part_sizes(arch, name)), generator=generator)
        rows = arch.vocabulary if part in ("embed", "head") else sum(part_sizes(arch, name))
        columns = {"o": arch.heads * arch.head_width, "down": arch.hidden}.get(part, arch.width)
        return torch.randn(rows, columns, generator=generator) / math.sqrt(columns)

    return Transformer(arch, {name: weight(name) for name in names(arch)}).to(dtype)


PROMPTS = ((5, 6, 7, 8, 9, 10), (5, 6, 7, 11), (5, 6, 7, 12, 13, 14, 15, 16))  # three tokens are common to all
LENGTHS = (4, 1, 6, 3, 7, 2, 5, 4, 1, 3)  # of the completions
SIZES = (4, 3, 3)  # of the groups
REWARDS = (0.0, 1.0, 0.25, 0.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0)  # the last group's are equal
ANSWERS = (0, 1, 2, 0, 0, 1, 2, 0, 0, 0)  # which final answer each completion gives, counted within its group
TOOL = (2, slice(2, 4))  # row and columns of tokens that the policy did not choose, amid its own


def toy_groups(seed: int = 0, dtype: torch.dtype = torch.float64) -> Groups:
    """Ten completions of three prompts, 7 tokens at most; row 2 holds a tool's answer between its own tokens."""
    generator = torch.Generator().manual_seed(derive(seed, "toy"))
    lengths = torch.tensor(LENGTHS)
    shape = (len(LENGTHS), max(LENGTHS))
    group = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    present = torch.arange(shape[1]) < lengths[:, None]
    tokens = torch.randint(ARCH.vocabulary, shape, generator=generator) * present
    mask = present.clone()
    mask[TOOL] = False
    logp = -4.5 + torch.randn(shape, generator=generator, dtype=dtype)
    return Groups(payload=Sequences(PROMPTS, group, tokens, lengths, 1.0), mask=mask, unit=group,
                  version=torch.zeros(shape, dtype=torch.long), logp_behaviour=torch.where(mask, logp, 0.0),
                  reward=torch.tensor(REWARDS, dtype=dtype), finished=lengths < shape[1], limit=shape[1],
                  extra={"answer": torch.tensor(ANSWERS)})


def sequences(batch: Batch) -> Sequences:
    assert isinstance(batch.payload, Sequences)
    return batch.payload


def widened(batch: Groups, columns: int) -> Groups:
    """The same batch with that many masked columns at its end, NaN in those that hold fractions."""
    def wide(x: Tensor) -> Tensor:
        fill = torch.nan if x.is_floating_point() else 0
        return torch.cat([x, x.new_full((len(x), columns), fill)], 1)

    wider = {f.name: wide(x) for f in fields(batch)
             if isinstance(x := getattr(batch, f.name), Tensor) and x.shape == batch.mask.shape}
    payload = sequences(batch)
    return batch.replace(**wider, payload=replace(payload, tokens=wide(payload.tokens)))


@dataclass(frozen=True)
class Rows:
    """The payload of a `TablePolicy`: which rows of its table these are."""

    index: Tensor  # [B] long

    def take(self, rows: Tensor) -> Self:
        return replace(self, index=self.index[rows])


class TablePolicy:
    """log π of every decision is one entry of a table, [B, T]; micro-batches have the given sizes, or are one."""

    decision = "decision"

    def __init__(self, log_prob: Tensor, sizes: Sequence[int] = ()) -> None:
        self.table = nn.Parameter(log_prob.clone())
        self.module: nn.Module = nn.ParameterList([self.table])
        self.sizes = list(sizes)

    def log_prob(self, batch: Batch) -> Tensor:
        rows = batch.payload
        assert isinstance(rows, Rows)
        return torch.where(batch.mask, self.table[rows.index], 0.0)

    def score(self, batch: Batch, entropy: bool = False) -> Score:
        """The entropy of a decision is taken to be its own surprise, −log π."""
        logp = self.log_prob(batch)
        return Score(logp, -logp if entropy else None)

    def split(self, batch: Batch, whole_units: bool) -> list[Tensor]:
        return list(torch.arange(len(batch)).split(self.sizes or len(batch)))


def table_groups(reward: Sequence[float], mask: Sequence[Sequence[int]] | Tensor, *,
                 group: Sequence[int] | None = None, logp_old: Tensor | None = None,
                 answer: Sequence[int] | None = None, limit: int = 256,
                 dtype: torch.dtype = torch.float64) -> Groups:
    """A batch for a `TablePolicy`: one group, and one answer for each reward, unless told otherwise."""
    owned = torch.as_tensor(mask, dtype=torch.bool)
    unit = torch.zeros(len(reward), dtype=torch.long) if group is None else torch.tensor(group)
    rewards = torch.tensor(reward, dtype=dtype)
    answers = rewards.unique(return_inverse=True)[1] if answer is None else torch.tensor(answer)
    return Groups(payload=Rows(torch.arange(len(reward))), mask=owned, unit=unit,
                  version=torch.zeros(owned.shape, dtype=torch.long),
                  logp_behaviour=torch.zeros(owned.shape, dtype=dtype), logp_old=logp_old,
                  reward=rewards, finished=torch.ones(len(reward), dtype=torch.bool), limit=limit,
                  extra={"answer": answers})


class Recording(FlatAdamW):
    """AdamW that keeps a copy of every gradient it is given."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.gradients: list[Tensor] = []

    def step(self, lr: float, max_norm: float) -> float:
        self.gradients.append(self.gradient.clone())
        return super().step(lr, max_norm)


class Learner:
    """A method, its networks and its optimizer, as a run holds them."""

    def __init__(self, method: Method[Any], policy: Any, reference: Any = None) -> None:
        self.method = method
        networks = {"policy": Measured(policy), "reference": reference}
        self.models = Models(method.initial_state(), **{name: networks[name] for name in method.needs})
        self.optimizer = Recording(policy.module)
        self.metrics: dict[str, float] = {}

    def update(self, batch: Groups, step: int = 0, lr: float = 1e-2) -> Groups:
        """One source batch through the real loop; returns it as `prepare` left it."""
        generator = torch.Generator().manual_seed(derive(step, "minibatches"))
        prepared, self.metrics, _ = update(self.method, self.models, self.optimizer, batch, Pace(lr, 1e30), generator)
        assert isinstance(prepared, Groups)
        return prepared

    @property
    def gradient(self) -> Tensor:
        """That of the first optimizer step, flat."""
        return self.optimizer.gradients[0]

    @property
    def weights(self) -> Tensor:
        return self.optimizer.master


def language_learner(method: Method[Any], budget: int = 2048, dtype: torch.dtype = torch.float64) -> Learner:
    """A learner on `toy_model()`, with another random model as the frozen reference."""
    reference = toy_model(seed=1, dtype=dtype).requires_grad_(False)
    return Learner(method, CausalLM(toy_model(dtype=dtype), None, budget), CausalLM(reference, None, budget))


def relative_error(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖, or ‖found‖ where nothing is expected."""
    found, expected = found.detach(), expected.detach()
    scale = float(expected.norm())
    return float((found - expected).norm()) / (scale or 1.0)
