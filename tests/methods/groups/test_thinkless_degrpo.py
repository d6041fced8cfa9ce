"""DeGRPO: the first token and the rest, each by its own weight."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups
from posttrain.methods.groups.thinkless_degrpo import ThinklessDeGRPO


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def gradient(method: ThinklessDeGRPO, batch: Groups, logp: Tensor | None = None) -> Tensor:
    table = torch.zeros(batch.mask.shape).double() if logp is None else logp
    learner = Learner(method, TablePolicy(table))
    learner.update(batch)
    return learner.gradient.view(table.shape)


def test_first_token_and_the_rest() -> None:
    # Rewards 0, 1: Â = ∓½, not divided by a standard deviation.  α = 0.1: the first token has −½ · 0.1 Â, whatever the
    # length; those after it −½ Â / T with T = 3 and 1.
    found = gradient(ThinklessDeGRPO(control_weight=0.1, kl_coef=0), table_groups([0, 1], [[1, 1, 1, 1], [1, 1, 0, 0]]))
    assert_close(found, f64([[0.025, *[0.25 / 3] * 3], [-0.025, -0.25, 0, 0]]), rtol=1e-10, atol=1e-12)


def test_a_weight_of_one_over_the_length_is_grpo_s() -> None:
    # Three tokens, α = 1/T = ½: all of a completion's tokens weigh the same, 3/2 of GRPO's 1/3.
    found = gradient(ThinklessDeGRPO(control_weight=0.5, kl_coef=0), table_groups([0, 1], [[1, 1, 1]] * 2))
    assert_close(found, f64([[0.125] * 3, [-0.125] * 3]), rtol=1e-10, atol=1e-12)


def test_each_part_is_clipped_by_its_own_ratio() -> None:
    # Â = −½, +½.  Row 1: the first token's ratio 1.5 is clipped at 1.2, the second's is 1.1.
    # Row 0: 0.5 is clipped at 0.8, the second's 1.5 is not.  α = 1, T = 1: dL/dlog π = −½ ρ Â or 0.
    logp = f64([[0.5, 1.5], [1.5, 1.1]]).log()
    batch = table_groups([0, 1], [[1, 1], [1, 1]], logp_old=torch.zeros_like(logp))
    found = gradient(ThinklessDeGRPO(control_weight=1, kl_coef=0), batch, logp)
    assert_close(found, f64([[0, 0.375], [0, -0.275]]), rtol=1e-10, atol=1e-12)


def test_the_first_decision_is_the_policy_s_own() -> None:
    # Row 0 opens with a token that is not the policy's.  Row 1 has a control token alone.  α = 1.
    found = gradient(ThinklessDeGRPO(control_weight=1, kl_coef=0), table_groups([0, 1], [[0, 1, 1], [1, 0, 0]]))
    assert_close(found, f64([[0, 0.25, 0.25], [-0.25, 0, 0]]), rtol=1e-10, atol=1e-12)


def test_kl_term() -> None:
    # Equal rewards leave β k3, a mean over all of a completion's tokens.  log π_ref − log π = log 2 at one of two:
    # k3 = 2 − 1 − log 2, its derivative 1 − 2 = −1.  β = 0.3, one row.
    logp, ref = torch.zeros(1, 2).double(), f64([[math.log(2), 0.0]])
    learner = Learner(ThinklessDeGRPO(kl_coef=0.3), TablePolicy(logp), TablePolicy(ref))
    learner.update(table_groups([1], [[1, 1]]))
    assert learner.metrics["loss/kl"] == pytest.approx(0.15 * (1 - math.log(2)), rel=1e-10)
    assert_close(learner.gradient, torch.tensor([-0.15, 0], dtype=torch.float64), rtol=1e-10, atol=1e-12)
