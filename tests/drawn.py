"""What tests of sampling have in common: ways of drawing, a decoder, and what the same completions are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from posttrain.core import Groups
from posttrain.nets.kernels import Uncompiled, compiled
from posttrain.policies.causal_lm import Sequences
from posttrain.rollout import packed
from posttrain.rollout.engine import Completions

WAYS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.7, "top_p": 0.9, "top_k": 30},
    {"bad_words": ((3,), (9, 4), (8, 9, 5), *((a, b) for a in range(97) for b in range(a % 6, 97, 6)))},
    {"logit_bias": ((2, 3.0), (4, -1.0)), "min_p": 0.05},
    {"stop_strings": ("M_", "#", "Ka", "H", "nYh", "never this"), "stop_tokens": ()},
    {"temperature": 0.0},
)


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def operations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that imports this has each of its tests run with the compiled kernels and with torch's operations."""
    if request.param == "torch":
        monkeypatch.setattr(packed, "kernels_for", lambda *_: None)
        monkeypatch.setattr(packed, "products_for", lambda *_: None)
    else:
        try:
            compiled()
        except Uncompiled as why:
            pytest.skip(str(why))
    return str(request.param)


def letters(ids: list[int]) -> str:
    return "".join(chr(ord("!") + i % 90) for i in ids)


def same(a: Completions, b: Completions) -> None:
    """The same tokens, and log-probabilities to the rounding of differently shaped products."""
    assert torch.equal(a.tokens, b.tokens)
    assert torch.equal(a.lengths, b.lengths)
    assert torch.equal(a.finished, b.finished)
    assert_close(a.logp, b.logp, rtol=0, atol=1e-5)
    assert_close(a.log_kept, b.log_kept, rtol=0, atol=1e-5)


def as_batch(prompts: Sequence[Sequence[int]], out: Completions, samples: int, temperature: float) -> Groups:
    """What was drawn, as the rows that an update learns from."""
    rows = torch.arange(len(out.tokens)) // samples
    mask = torch.arange(out.tokens.shape[1]) < out.lengths[:, None]
    return Groups(payload=Sequences(tuple(map(tuple, prompts)), rows, out.tokens, out.lengths, temperature), mask=mask,
                  unit=rows, version=torch.zeros(mask.shape), logp_behaviour=out.logp, reward=torch.zeros(len(rows)),
                  finished=out.finished, limit=out.tokens.shape[1])
