"""DPH-RL's rehearsal term, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups, Method
from posttrain.methods.groups.dph_rl import DPHRL
from posttrain.methods.groups.grpo import GRPO

# Rewards 0 and 1: mean 1/2, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: Method[Any], batch: Groups, logp: Tensor) -> tuple[Learner, Tensor]:
    """The learner after one update, and the gradient with respect to log π, [B, T]."""
    learner = Learner(method, TablePolicy(logp))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


def rehearsal(logp_behaviour: Tensor, version: list[int]) -> Groups:
    """Rows that were each sampled alone, so that no advantage is left, by the weights of these versions."""
    rows = list(range(len(version)))
    batch = table_groups([1.0] * len(rows), torch.ones_like(logp_behaviour), group=rows)
    versions = torch.tensor(version)[:, None].expand(logp_behaviour.shape)
    return batch.replace(logp_behaviour=logp_behaviour, version=versions)


def test_only_the_initial_samples_are_rehearsed() -> None:
    # Row 1 is of version 0, u = 2 and ½: f = 2 − 1 − log 2 and ½ − 1 + log 2, together ½, over two tokens: L = η / 4.
    # df/dlog π = u − 1.
    logp = f64([[-1, -1], [math.log(0.5), math.log(0.25)]])
    batch = rehearsal(f64([[-3, -3], [math.log(0.25), math.log(0.5)]]), [3, 0])
    learner, gradient = run(DPHRL(rehearsal_coef=0.2), batch, logp)
    assert learner.metrics["loss/rehearsal"] == pytest.approx(0.2 / 4)
    assert learner.metrics["rehearsed"] == pytest.approx(1 / 2)
    assert_close(gradient, 0.2 / 2 * f64([[0, 0], [1, -0.5]]))


def test_mean_over_initial_samples_is_the_forward_kl() -> None:
    # π_0 = ½, ¼, ¼ drawn in proportion, π = ¼, ¼, ½: KL(π_0 ‖ π) = ½ log 2 + 0 + ¼ log ½ = ¼ log 2.
    initial, now = f64([[0.5], [0.5], [0.25], [0.25]]).log(), f64([[0.25], [0.25], [0.25], [0.5]]).log()
    learner, _ = run(DPHRL(rehearsal_coef=1), rehearsal(initial, [0] * 4), now)
    assert learner.metrics["loss/rehearsal"] == pytest.approx(math.log(2) / 4)


def test_nothing_to_rehearse() -> None:
    logp = f64([[-1], [-2]])
    learner, gradient = run(DPHRL(), rehearsal(logp - 1, [1, 2]), logp)
    assert learner.metrics["loss/rehearsal"] == 0
    assert_close(gradient, torch.zeros_like(logp))


def test_without_rehearsal_is_grpo_with_a_wide_upper_clip() -> None:
    # Equal lengths, so that the mean over tokens is the mean over rows.
    logp = f64([[0.5, 1.5, 1.25], [0.5, 1.25, 1.5]]).log()
    batch = table_groups([0, 1], [[1, 1, 1]] * 2, logp_old=torch.zeros_like(logp))
    expected = run(GRPO(clip_high=0.28, kl_coef=0), batch, logp)[1]
    assert_close(run(DPHRL(rehearsal_coef=0), batch, logp)[1], expected)
