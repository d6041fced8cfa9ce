"""SFT's cross-entropy, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from toy import Learner, TablePolicy, table_groups
from worked import close, f64, learn, ln

from posttrain.methods.imitation.sft import SFT


@pytest.mark.parametrize("sizes", [(), (1, 1)])
def test_mean_over_the_tokens_of_what_is_kept(sizes: tuple[int, ...]) -> None:
    # One token of ½ and two of ¼ (a tool's between them): L = (ln 2 + 2 ln 4) / 3 = 5/3 ln 2, dL/dlog π = −1/3.  The
    # row of reward 0 is no part of it, and the reward of 2 weighs no more than that of 1.
    batch = table_groups([1, 0, 2], [[1, 0, 0], [1, 1, 1], [1, 0, 1]], given=(0, 1, 2))
    logp = ln([[0.5, 1, 1], [0.1, 0.1, 0.1], [0.25, 0.9, 0.25]])
    metrics, _, gradient = learn(SFT(), batch, logp, sizes=sizes)
    close(metrics["loss/policy"], 5 / 3 * math.log(2))
    close(gradient, f64([[-1, 0, 0], [0, 0, 0], [-1, 0, -1]]) / 3)


def test_what_the_sampler_recorded_is_never_read() -> None:
    # A given row has no sampler: NaN stands there.
    batch = table_groups([1], [[1, 1]], given=(0,))
    unknown = batch.replace(logp_behaviour=torch.full((1, 2), torch.nan, dtype=torch.float64))
    close(learn(SFT(), unknown, ln([[0.5, 0.5]]))[2], [[-0.5, -0.5]])


def test_optimum_is_the_demonstrator() -> None:
    # Three demonstrations in four make the first of two choices, log π = (ln p, ln (1 − p)) with p = σ(z): the
    # gradient over z, −¾ (1 − p) + ¼ p, is 0 at p = ¾, where the loss is the entropy ¾ ln 4/3 + ¼ ln 4.
    p = 0.75
    batch = table_groups([1] * 4, [[1]] * 4, given=range(4))
    logp = ln([[p], [p], [p], [1 - p]])
    metrics, _, gradient = learn(SFT(), batch, logp)
    close(gradient[:, 0] @ f64([1 - p, 1 - p, 1 - p, -p]), 0)
    close(metrics["loss/policy"], p * math.log(4 / 3) + (1 - p) * math.log(4))


def test_a_batch_without_worth_teaches_nothing() -> None:
    learner = Learner(SFT(), TablePolicy(ln([[0.5]])))
    learner.update(table_groups([0], [[1]], given=(0,)))
    assert (learner.gradient == 0).all()
    assert learner.metrics["silent"] == 1
