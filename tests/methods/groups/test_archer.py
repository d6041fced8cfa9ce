"""Archer's split by entropy; a TablePolicy's entropy is −log π."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups, Method
from posttrain.methods.groups.archer import Archer, above_quantile

# Rewards 0 and 1: mean 1/2, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: Method[Any], batch: Groups, logp: Tensor) -> tuple[Learner, Tensor]:
    """The learner after one update, and the gradient with respect to log π, [B, T]."""
    learner = Learner(method, TablePolicy(logp))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


def test_uncertain_tokens_have_the_loose_clip() -> None:
    # Entropies 1 … 5 and 10 … 50: the 0.8-quantile of five numbers lies between the fourth and the fifth, so only the
    # last token of either response reasons, however large the other response is.  Ratio 1.4 throughout.
    #   Â = −A: min(−1.4 A, clipped) = −1.4 A whatever the clip, gradient 1.4 A / 10
    #   Â = +A: 1.2 A, clipped, for knowledge; 1.4 A within 1 + 0.5 for reasoning
    logp = -f64([[10, 20, 30, 40, 50], [1, 2, 3, 4, 5]])
    batch = table_groups([0, 1], [[1] * 5] * 2, logp_old=logp - math.log(1.4))
    learner, gradient = run(Archer(kl_knowledge=0), batch, logp)
    assert_close(gradient, 1.4 * A / 10 * f64([[1, 1, 1, 1, 1], [0, 0, 0, 0, -1]]))
    assert learner.metrics["reasons"] == pytest.approx(2 / 10)
    assert learner.metrics["loss/policy"] == pytest.approx(-A / 10 * (5 * -1.4 + 4 * 1.2 + 1.4))


def test_confident_tokens_pay_for_leaving_the_reference() -> None:
    # Equal rewards; log π_ref − log π = log 2, dk3/dlog π = 1 − 2, over four tokens.  The last token reasons.
    logp = -f64([[1, 2, 3, 4]])
    learner = Learner(Archer(kl_knowledge=0.4), TablePolicy(logp), TablePolicy(logp + math.log(2)))
    learner.update(table_groups([1], [[1, 1, 1, 1]]))
    assert_close(learner.gradient, f64([[-0.1, -0.1, -0.1, 0]])[0])
    assert learner.metrics["loss/kl"] == pytest.approx(0.4 * 3 / 4 * (1 - math.log(2)))


def test_equal_constants_make_the_split_indifferent() -> None:
    generator = torch.Generator().manual_seed(0)
    logp = torch.randn(2, 6, generator=generator, dtype=torch.float64) - 3
    batch = table_groups([0, 1], [[1] * 6] * 2, logp_old=logp + 0.3 * logp.roll(1, 1) + 1)
    methods = [Archer(quantile=q, clip_reasoning=0.3, clip_knowledge=0.3, kl_knowledge=0) for q in (0.1, 0.9)]
    found = [run(method, batch, logp)[1] for method in methods]
    assert_close(found[0], found[1])


def test_quantile_is_of_each_row_and_of_its_own_tokens() -> None:
    # Row 0 without its hole: 1, 2, 3, median 2.  Row 1: one token is never above itself.  Row 2 has none.
    x = f64([[1, 9, 2, 3], [5, 0, 0, 0], [1, 2, 3, 4]])
    mask = torch.tensor([[1, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    assert above_quantile(x, mask, 0.5).tolist() == [[False] * 3 + [True], [False] * 4, [False] * 4]
