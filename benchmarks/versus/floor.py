"""The least time that the stages of a GRPO step can take on a machine, to hold measured times against.

Every distinct prompt token is computed once for all completions that follow it, every completion token once
in the rollout and once in the training pass, whose backward pass costs twice its forward pass; the output
head is applied only where a token is predicted.  A multiplication and an addition count as two operations
(FLOP).  Each decoded token of the longest completion reads every weight once, and the keys and values that living
completions look at; what several share once for all of them.  AdamW reads and writes its four numbers for each
weight.  Norms, softmax, sampling and all other movement of memory are left out, so no program reaches 100%.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.nets.architecture import Architecture

Least = Callable[[Sequence[Sequence[int]], Sequence[int]], float]  # seconds, from prompts' ids and lengths
PASSES = 3  # in training: forward, and twice that backward
OPTIMIZER_BYTES = 28  # of each weight: gradient, master and both averages read, the last three written; fp32


@dataclass(frozen=True)
class Floor:
    """The least seconds of each stage, for a model on a machine."""

    arch: Architecture
    precision: str  # of the compute weights: "fp32" or "bf16"
    gflops: float  # highest rate of a matrix product
    gbytes: float  # highest rate of moving memory, GB/s

    @property
    def update(self) -> dict[str, Least]:
        """By stage: loss and gradient, AdamW."""
        return {"loss and gradient": self.gradient, "optimizer": self.optimizer}

    @property
    def step(self) -> dict[str, Least]:
        """By stage: all of a GRPO step."""
        return {"rollout": self.rollout, **self.update}

    def rollout(self, prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
        """Arithmetic, or reading weights, keys and values for every token of the longest completion, whichever is
        longer."""
        numbers = max(lengths) * self.weights + tokens_read(prompts, lengths) * kept_per_token(self.arch)
        reading = numbers * self._width / (self.gbytes * 1e9)
        return max(pass_flop(self.arch, prompts, lengths) / (self.gflops * 1e9), reading)

    def gradient(self, prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
        """Arithmetic, forward and backward."""
        return PASSES * pass_flop(self.arch, prompts, lengths) / (self.gflops * 1e9)

    def optimizer(self, prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
        """AdamW moves every weight's numbers, whatever it learnt from."""
        return self.weights * (OPTIMIZER_BYTES + self._shadow) / (self.gbytes * 1e9)

    @property
    def weights(self) -> int:
        """How many are trained, those of norms and biases aside."""
        embeddings = self.arch.width * self.arch.vocabulary * (1 if self.arch.tied else 2)
        return embeddings + flop_per_token(self.arch) // 2

    @property
    def _width(self) -> int:
        return 2 if self.precision == "bf16" else 4

    @property
    def _shadow(self) -> int:
        """Bytes written of each compute weight, where it is not the master itself."""
        return 2 if self.precision == "bf16" else 0


def flop_per_token(arch: Architecture) -> int:
    """All layers' products with weights, for one token."""
    attention = 2 * arch.width * (arch.heads + arch.kv_heads) * arch.head_width  # q and output; k and v
    return 2 * arch.layers * (attention + 3 * arch.width * arch.hidden)


def flop_per_prediction(arch: Architecture) -> int:
    """The output head, for one predicted token."""
    return 2 * arch.width * arch.vocabulary


def flop_per_pair(arch: Architecture) -> int:
    """Attention of one token to one token in all layers: the score, and the weighted sum."""
    return 4 * arch.layers * arch.heads * arch.head_width


def pass_flop(arch: Architecture, prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """One forward pass: the prompts' token ids, and all completions' lengths, those of one prompt side by side."""
    assert len(lengths) % len(prompts) == 0, (len(lengths), len(prompts))
    samples = len(lengths) // len(prompts)
    shared = common_prefix(prompts)
    tokens, pairs = shared, triangle(shared)
    for prompt in map(len, prompts):
        tokens += prompt - shared
        pairs += triangle(prompt) - triangle(shared)
    for i, length in enumerate(lengths):
        fed = length - 1  # the last token predicts nothing
        tokens += fed
        pairs += fed * len(prompts[i // samples]) + triangle(fed)
    return (tokens * flop_per_token(arch) + pairs * flop_per_pair(arch)
            + sum(lengths) * flop_per_prediction(arch))


def kept_per_token(arch: Architecture) -> int:
    """Numbers of a token's keys and values in all layers."""
    return 2 * arch.layers * arch.kv_heads * arch.head_width


def tokens_read(prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Whose keys and values are read while completions of these lengths grow, those of one prompt side by side: each
    reads its own for every token that it feeds; a prompt is read once for all of its completions that live."""
    samples, shared = len(lengths) // len(prompts), common_prefix(prompts)
    fed = [length - 1 for length in lengths]  # the last token predicts nothing
    own = [(len(prompt) - shared) * max(fed[i * samples : (i + 1) * samples]) for i, prompt in enumerate(prompts)]
    return shared * max(fed) + sum(own) + sum(map(triangle, fed))


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all prompts share."""
    columns = enumerate(zip(*prompts, strict=False))  # as long as the shortest
    return next((i for i, column in columns if len(set(column)) > 1), min(map(len, prompts)))


def triangle(n: int) -> int:
    """Pairs of a token with itself or an earlier one, among n."""
    return n * (n + 1) // 2


def peaks(*machines: Mapping[str, Any]) -> str:
    """What floors were computed from: a machine as it was found, or from the least to the most of several times."""
    def told(name: str) -> str:
        return " to ".join(dict.fromkeys(f"{of(machine[name] for machine in machines):.0f}" for of in (min, max)))

    return f"peaks {told('gflops')} GFLOP/s and {told('gbytes')} GB/s"


def floor_of(arch: Architecture, machine: Mapping[str, Any]) -> Floor:
    """For a model on a machine as `versus.machine` found it."""
    return Floor(arch, machine["precision"], machine["gflops"], machine["gbytes"])
