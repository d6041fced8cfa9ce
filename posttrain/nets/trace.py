"""What a network's products gave while it sampled, so that an update of the same weights need not compute them again.

A forward pass is mostly products with weights, and sampling has made every one of them that the training pass begins
with.  What lies between them costs little, and is computed again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from posttrain.nets.kernels import any_kernels
from posttrain.nets.products import linear

if TYPE_CHECKING:
    from posttrain.nets.transformer import Arithmetic, Transformer
    from posttrain.nets.tree import Tree

Version = tuple[tuple[int, int], ...]

NOTHING = -1  # the slot before a sequence's first token
PRODUCTS = ("qkv", "o", "gate_up", "down")  # of a layer


class Trace:
    """Tokens are known by all that came before them: each has a slot, and its slot and the next token lead to that
    one's.  Nothing else needs to say which rows these are, or in which order they come to be learnt from."""

    def __init__(self, net: Transformer, version: Version, tokens: int, limit: int) -> None:
        """version: of the weights that are sampled with; tokens: how many are at first; limit: bytes.  As many of the
        first layers are kept as fit of these, then the logits if they do, and then as many tokens as fit of that."""
        self.net, self.version = net, version
        each = sum(net.weight(f"0.{name}").shape[0] for name in PRODUCTS) * net.head.element_size()
        logits = len(net.head) * net.head.element_size()
        self.layers = min(net.arch.layers, limit // (tokens * each))
        self.with_logits = self.layers == net.arch.layers and tokens * (self.layers * each + logits) <= limit
        self.room = limit // (self.layers * each + self.with_logits * logits) if self.layers else 0  # tokens
        self.names = {f"{i}.{name}" for i in range(self.layers) for name in PRODUCTS}
        self.next: dict[tuple[int, int], int] = {}  # (slot, token after it) -> that token's slot
        self.read = 0  # tokens
        self.kept: Mapping[str, list[Tensor]] = defaultdict(list)  # parts of [read, out] for each product
        self.logit_parts: list[Tensor] = []  # [., V] each
        self.logit_row: dict[int, int] = {}  # slot -> row of the logits after it in all of these

    def takes(self, tokens: int) -> bool:
        """Whether so many more fit."""
        return self.read + tokens <= self.room

    @property
    def holds(self) -> bool:
        """Whether it is of the weights that the net has now."""
        return self.version == version(self.net)

    def reading(self, before: Sequence[int], tokens: Sequence[int]) -> list[int]:
        """Slots of tokens, each read after the one in slot `before`."""
        slots = []
        for slot, token in zip(before, tokens, strict=True):
            slots.append(self.next.setdefault((slot, token), self.read))
            self.read += 1
        return slots

    def chain(self, before: int, tokens: Sequence[int]) -> list[int]:
        """Slots of tokens that are read one after the other, the first after the one in slot `before`."""
        slots = [before]
        for token in tokens:
            slots += self.reading(slots[-1:], [token])
        return slots[1:]

    def find(self, tree: Tree) -> Recall | None:
        """Of a tree's tokens; None where one of them was not read with the weights of now."""
        if not self.layers or not self.holds:
            return None
        slots: list[int] = []
        for before, token in zip(tree.parents.tolist(), tree.ids.tolist(), strict=True):
            slot = self.next.get((NOTHING if before < 0 else slots[before], token))
            if slot is None:
                return None
            slots.append(slot)
        return Recall(self, torch.tensor(slots))

    def note_layers(self, said: Mapping[str, Tensor]) -> None:
        """What the products of the layers gave for the tokens last said to be read, [at least as many as are kept, n,
        out] each."""
        for name, parts in said.items():
            for i, part in enumerate(parts[: self.layers].unbind()):
                self.kept[f"{i}.{name}"].append(part)

    def note_logits(self, slots: Sequence[int], logits: Tensor) -> None:
        """Logits [n, V] after the tokens in these slots."""
        if self.with_logits:
            first = sum(map(len, self.logit_parts))
            self.logit_row.update((slot, first + i) for i, slot in enumerate(slots))
            self.logit_parts.append(logits)

    def logits(self, slots: Tensor) -> Tensor | None:
        """Those after the tokens in these slots [n], [n, V]; None where one of them has none."""
        rows = [self.logit_row.get(slot, NOTHING) for slot in slots.tolist()]
        return gather(self.logit_parts, torch.tensor(rows)) if rows and min(rows) > NOTHING else None


class Recall(NamedTuple):
    """Where a trace has some tokens."""

    trace: Trace
    slots: Tensor  # [n] long

    def product(self, name: str) -> Tensor:
        """What it gave, [n, out]."""
        return gather(self.trace.kept[name], self.slots)

    def logits(self, tokens: Tensor) -> Tensor | None:
        """Those after some of them, tokens [m] long: [m, V]; None where one has none."""
        return self.trace.logits(self.slots[tokens])


def gather(parts: Sequence[Tensor], index: Tensor) -> Tensor:
    """Rows [n] of what these parts [., width] are together, in one copy where that compiles."""
    kernels = any_kernels(parts[0].dtype)
    if kernels is None or not all(part.is_contiguous() for part in parts):
        return torch.cat(list(parts))[index]
    ends = torch.tensor([len(part) for part in parts]).cumsum(0)
    which = torch.searchsorted(ends, index, right=True)
    return kernels.gather(parts, which, index - F.pad(ends, (1, 0))[which])


class Noting:
    """An `Arithmetic` that leaves its products in a trace, row for row of the tokens last said to be read."""

    def __init__(self, by: Arithmetic, trace: Trace) -> None:
        self.by, self.trace = by, trace
        self.norm, self.gate, self.add, self.turn = by.norm, by.gate, by.add, by.turn

    def linear(self, x: Tensor, name: str) -> Tensor:
        y = self.by.linear(x, name)
        if name in self.trace.names:
            self.trace.kept[name].append(y)
        return y


class Recalling:
    """An `Arithmetic` with gradients that takes products from where a trace has them."""

    def __init__(self, by: Arithmetic, known: Recall) -> None:
        self.by, self.known, self.trace = by, known, known.trace
        self.norm, self.gate, self.add, self.turn = by.norm, by.gate, by.add, by.turn

    def linear(self, x: Tensor, name: str) -> Tensor:
        if name not in self.trace.names:
            return self.by.linear(x, name)
        net, bias = self.trace.net, f"{name}_bias"
        return linear(x.to(net.weight(name).dtype), net.weight(name), net.weight(bias) if net.has(bias) else None,
                      self.known.product(name))


def version(net: Transformer) -> Version:
    """Where the net's weights lie, and how often they were moved there."""
    return tuple((p.data_ptr(), p._version) for p in net.parameters())
