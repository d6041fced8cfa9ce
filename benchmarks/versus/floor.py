"""The least arithmetic that a GRPO step needs, to hold times against what the machine can do.

Every distinct prompt token is computed once for all completions that follow it, every completion token once
in the rollout and once in the training pass, whose backward pass costs twice its forward pass; the output
head is applied only where a token is predicted.  A multiplication and an addition count as two operations
(FLOP).  Norms, softmax, sampling, the optimizer and all movement of memory are left out, so no program
reaches 100%.
"""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.nets.architecture import Architecture

PASSES = 4  # forward in the rollout; forward, and twice that backward, in training


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


def step_flop(arch: Architecture, prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """One step: the prompts' token ids, and all completions' lengths, those of one prompt side by side."""
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
    return PASSES * (tokens * flop_per_token(arch) + pairs * flop_per_pair(arch)
                     + sum(lengths) * flop_per_prediction(arch))


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all prompts share."""
    columns = enumerate(zip(*prompts, strict=False))  # as long as the shortest
    return next((i for i, column in columns if len(set(column)) > 1), min(map(len, prompts)))


def triangle(n: int) -> int:
    """Pairs of a token with itself or an earlier one, among n."""
    return n * (n + 1) // 2
