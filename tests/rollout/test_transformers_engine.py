"""Sampling with transformers' own module: option for option what the embedded engine does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hugging_face import tiny
from torch.testing import assert_close

from posttrain.nets.architecture import read_architecture
from posttrain.nets.hf_weights import from_hf
from posttrain.nets.transformer import Transformer
from posttrain.rollout.embedded import EmbeddedEngine
from posttrain.rollout.engine import Completions, Sampling
from posttrain.rollout.transformers_engine import TransformersEngine

PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 10], [5, 6, 7, 11, 12, 13, 14, 15, 16]]
PAIRS = tuple((a, b) for a in range(300) for b in range(a % 6, 300, 6))  # a sixth of all tokens may not follow a token


def letters(ids: list[int]) -> str:
    return "".join(chr(ord("!") + i % 90) for i in ids)


@pytest.mark.parametrize("options", [
    {"temperature": 0.7, "top_p": 0.9, "top_k": 30},
    {"min_p": 0.1},
    {"bad_words": ((3,), (9, 4), *PAIRS)},
    {"logit_bias": ((2, 3.0), (4, -1.0)), "temperature": 1.5, "min_p": 0.05},
    {"bad_words": PAIRS, "temperature": 0.0},
], ids=lambda options: "-".join(options))
def test_both_engines_draw_the_same(options: dict[str, Any]) -> None:
    model = tiny("Llama", tied=True)
    arch = read_architecture(model.config.to_dict())
    net = Transformer(arch, from_hf(arch, model.state_dict()))
    sampling = Sampling(max_new_tokens=10, stop_tokens=tuple(range(202, 212)), **options)
    ours, theirs = (make.generate(PROMPTS, 4, sampling, torch.Generator().manual_seed(0))
                    for make in (EmbeddedEngine(net, letters), TransformersEngine(model, letters)))
    for name in ("tokens", "lengths", "finished"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert_close(ours.logp, theirs.logp, rtol=0, atol=1e-5)
    assert_close(ours.log_kept, theirs.log_kept, rtol=0, atol=1e-5)
    assert varied(ours)


def varied(out: Completions) -> bool:
    return len(out.lengths.unique()) > 2 and len(out.tokens.unique()) > 10
