"""A causal language model: a decision is a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from posttrain.core import Batch, Score
from posttrain.core.method import B
from posttrain.core.policy import Predictions
from posttrain.nets.head import token_log_prob
from posttrain.nets.precision import at_least_fp32
from posttrain.nets.trace import Recall
from posttrain.nets.transformer import Transformer
from posttrain.nets.tree import Tree, build_level, common_prefix


@dataclass(frozen=True)
class Sequences:
    """Completions and the prompts that they answer."""

    prompts: tuple[tuple[int, ...], ...]  # each prompt once
    prompt: Tensor  # [B] long: index of each row's prompt
    tokens: Tensor  # [B, T] long
    lengths: Tensor  # [B] long
    temperature: float  # of every log-probability: the policy is what was sampled from
    rewritten: tuple[tuple[tuple[int, ...], ...], ...] = field(default=(), kw_only=True)  # each prompt, in other words

    def under(self, which: Tensor) -> Self:
        """The same rows as answers to rewritten prompts, `which` [B] long of them; as they are where there are none."""
        if not self.rewritten:
            return self
        every = tuple(prompt for variant in self.rewritten for prompt in variant)
        return replace(self, prompts=every, prompt=which * len(self.rewritten[0]) + self.prompt)

    def take(self, rows: Tensor) -> Self:
        return replace(self, prompt=self.prompt[rows], tokens=self.tokens[rows], lengths=self.lengths[rows])

    def ends(self, mask: Tensor) -> Tensor:
        """[B] long: how many tokens each row has up to its last decision."""
        return torch.where(mask, torch.arange(1, mask.shape[1] + 1), 0).amax(1)

    def after(self, rows: Tensor, first: Tensor, mask: Tensor) -> Self:
        """These rows as answers to their prompts with the answers of rows `first` behind them."""
        asked = tuple((*self.prompts[p], *tokens[:n]) for p, tokens, n in zip(
            self.prompt[first].tolist(), self.tokens[first].tolist(), self.ends(mask)[first].tolist(), strict=True))
        return replace(self.take(rows), prompts=asked, prompt=torch.arange(len(rows)), rewritten=())

    @property
    def spans(self) -> list[int]:
        """How many decisions each row has."""
        spans: list[int] = self.lengths.tolist()
        return spans


@dataclass(frozen=True)
class Packed:
    """A token tree of some rows, and where each masked decision is predicted."""

    tree: Tree
    source: Tensor  # [n] long: packed index of the token before each decision
    target: Tensor  # [n] long: the decision


class CausalLM:
    """Scores completions with a `Transformer`; prompts, and what prompts share, are computed once."""

    decision = "token"

    def __init__(self, net: Transformer, tokenizer: Any, tokens_per_micro_batch: int = 2048) -> None:
        self.module, self.tokenizer, self.budget = net, tokenizer, tokens_per_micro_batch

    def freeze(self, batch: B, seed: int) -> B:
        """Nothing here is random."""
        return batch

    def log_prob(self, batch: Batch) -> Tensor:
        return self.score(batch).log_prob

    def score(self, batch: Batch, entropy: bool = False) -> Score:
        """Log-probabilities [B, T] of the masked tokens; without gradient, however large the batch."""
        if torch.is_grad_enabled():
            return self._score(batch, entropy)
        out = torch.zeros(2, *batch.mask.shape, dtype=at_least_fp32(self.module.head[:0]).dtype)
        for rows in self.split(batch, whole_units=False):
            part = self._score(batch.take(rows), entropy)
            out[0, rows] = part.log_prob
            if part.entropy is not None:
                out[1, rows] = part.entropy
        return Score(out[0], out[1] if entropy else None)

    def _score(self, batch: Batch, entropy: bool) -> Score:
        sequences = batch.payload
        assert isinstance(sequences, Sequences)
        net, packed = self.module, pack(sequences, batch.mask)
        known = net.recall(packed.tree)
        logits = None if known is None else known.logits(packed.source)
        hidden = hidden_states(net, packed, known).to(net.head.dtype)
        logp, ent = token_log_prob(hidden, net.head, packed.target.to(hidden.device), sequences.temperature, entropy,
                                   logits)
        return Score(spread(logp, batch.mask), None if ent is None else spread(ent, batch.mask))

    def predict(self, batch: Batch) -> Predictions:
        """Log-probabilities of the whole vocabulary at each masked token."""
        sequences = batch.payload
        assert isinstance(sequences, Sequences)
        hidden = hidden_states(self.module, pack(sequences, batch.mask)).to(self.module.head.dtype)
        return lambda rows: (at_least_fp32(hidden[rows] @ self.module.head.t()) / sequences.temperature).log_softmax(-1)

    def split(self, batch: Batch, whole_units: bool) -> list[Tensor]:
        """Rows in order of their unit, cut where the token budget is full; a unit only where it must be."""
        sequences = batch.payload
        assert isinstance(sequences, Sequences)
        parts: list[list[int]] = []
        prompts: list[Sequence[int]] = []  # of the last part
        used = 0  # tokens of its prompts and completions
        for unit in batch.unit.unique().tolist():
            rows = (batch.unit == unit).nonzero()[:, 0].tolist()
            costs = sequences.lengths[rows].tolist()
            prompt = sequences.prompts[int(sequences.prompt[rows[0]])]
            more = computed([*prompts, prompt]) - computed(prompts)
            if not parts or used + more + sum(costs) > self.budget:
                parts.append([])
                prompts, used, more = [], 0, len(prompt)
            prompts.append(prompt)
            used += more
            for row, cost in zip(rows, costs, strict=True):
                if parts[-1] and used + cost > self.budget and not whole_units:
                    parts.append([])
                    prompts, used = [prompt], len(prompt)
                parts[-1].append(row)
                used += cost
        return [torch.tensor(part) for part in parts]


def computed(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens of prompts that are computed together: what all begin with counts once."""
    return sum(map(len, prompts)) - (len(prompts) - 1) * common_prefix(prompts) if prompts else 0


def hidden_states(net: Transformer, packed: Packed, known: Recall | None = None) -> Tensor:
    """What predicts each decision, [n, d] fp32; known: see `Transformer.forward`."""
    device = net.head.device
    states: Tensor = net(packed.tree.to(device), known)[packed.source.to(device)]
    return states


def spread(x: Tensor, mask: Tensor) -> Tensor:
    """What is known of each decision, [n], where the mask [B, T] has them, with 0 elsewhere: in the host's memory."""
    x = x.to(mask.device)
    return x.new_zeros(mask.shape).masked_scatter(mask, x)


def pack(sequences: Sequences, mask: Tensor) -> Packed:
    """Lay rows out as a tree: what all their prompts share, the rest of each prompt, the completions."""
    rows_of: dict[int, list[int]] = {}
    for row, prompt in enumerate(sequences.prompt.tolist()):
        rows_of.setdefault(prompt, []).append(row)
    prompts = [sequences.prompts[p] for p in rows_of]
    shared = common_prefix(prompts)
    fan_out = max(map(len, rows_of.values()))
    tokens, lengths = sequences.tokens.tolist(), sequences.lengths.tolist()

    completions: list[Sequence[int]] = []  # the last token predicts nothing, so it is left out
    starts: list[int] = []
    order: list[tuple[int, int]] = []  # (row, index of its prompt) in packed order
    for index, (prompt, rows) in enumerate(zip(prompts, rows_of.values(), strict=True)):
        order += [(row, index) for row in rows]
        completions += [tokens[row][: lengths[row] - 1] for row in rows] + [[]] * (fan_out - len(rows))
        starts += [len(prompt)] * fan_out

    root, ids = build_level([prompts[0][:shared]], [0])
    middle, middle_ids = build_level([p[shared:] for p in prompts], [shared] * len(prompts))
    leaf, leaf_ids = build_level(completions, starts)
    ends = torch.tensor([len(p) - shared for p in prompts]).cumsum(0) + shared - 1
    source = torch.zeros(mask.shape, dtype=torch.long)  # before each row's token t: the prompt's end, then t − 1
    at = len(ids) + len(middle_ids)
    for row, index in order:
        count = max(lengths[row] - 1, 0)
        source[row, 0] = ends[index]
        source[row, 1 : count + 1] = torch.arange(at, at + count)
        at += count
    tree = Tree(torch.tensor(ids + middle_ids + leaf_ids), (root, middle, leaf))
    return Packed(tree, source[mask], sequences.tokens[mask])
