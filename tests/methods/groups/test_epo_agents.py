"""EPO's corridor of entropies; a TablePolicy's entropy is −log π."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups, Method
from posttrain.methods.groups.epo_agents import EPOAgents, phase, remember, turns
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


def test_turns() -> None:
    mask = torch.tensor([[0, 1, 1, 0, 1, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1, 0]], dtype=torch.bool)
    assert turns(mask).tolist() == [[-1, 0, 0, -1, 1, -1, -1, 2], [0, 0, 0, 0, 0, 0, 0, -1]]


def test_history_is_of_each_turn() -> None:
    # Turn 0: batch means 2 and (4 + 8) / 2 = 6, history 4.  Turn 1 comes up for the first time.
    state = {"turn_0_entropy": 2.0, "turn_0_batches": 1.0}
    typical = remember(state, f64([[4, 8, 1, 9]]), torch.tensor([[0, 0, 1, -1]]))
    assert typical.tolist() == [[4, 4, 1, 0]]
    assert state == {"turn_0_entropy": 8, "turn_0_batches": 2, "turn_1_entropy": 1, "turn_1_batches": 1}


def test_bonus_and_corridor() -> None:
    # Equal rewards leave the entropies 1 and 3, mean 2 = H̄: the corridor 0.8 … 1.2 of it is [1.6, 2.4], and both lie
    # 0.6 outside.  L = −λ · 2 + λ γ · 0.6, λ = 0.1, γ = 0.5.  As H = −log π, the bonus has gradient λ / 2 for each
    # token, the hinge λ γ / 2 where H is too low and −λ γ / 2 where it is too high: it is no constant.
    method = EPOAgents(entropy_coef=0.1, smooth_coef=0.5, corridor_low=0.8, corridor_high=1.2)
    learner, gradient = run(method, table_groups([1], [[1, 1]]), f64([[-1, -3]]))
    assert learner.metrics["loss/entropy"] == pytest.approx(-0.2)
    assert learner.metrics["loss/smooth"] == pytest.approx(0.1 * 0.5 * 0.6)
    assert_close(gradient, f64([[0.05 + 0.025, 0.05 - 0.025]]))


def test_a_turn_has_its_own_corridor() -> None:
    # Turn 0 has the entropies 1 and 1, turn 1 has 5: all are typical of their turn, where one mean would be 7/3.
    method = EPOAgents(entropy_coef=1, corridor_low=0.9, corridor_high=1.1)
    learner, _ = run(method, table_groups([1], [[1, 1, 0, 1]]), -f64([[1, 1, 9, 5]]))
    assert learner.metrics["loss/smooth"] == 0


def test_phase() -> None:
    # 1 − 0.2 (1 − e^{−2u}) up to half of the horizon, 0.8 e^{−3u} after, constant beyond.
    assert phase(0) == 1
    assert phase(1) == pytest.approx(0.8 + 0.2 * math.exp(-2))
    assert phase(1.5) == pytest.approx(0.8 * math.exp(-1.5))
    assert phase(9) == phase(2) == pytest.approx(0.8 * math.exp(-3))


def test_without_a_bonus_is_grpo() -> None:
    # Equal lengths, so that the mean over tokens is the mean over rows.
    logp = f64([[0.5, 1.5], [0.5, 1.5]]).log()
    batch = table_groups([0, 1], [[1, 1]] * 2, logp_old=torch.zeros_like(logp))
    assert_close(run(EPOAgents(entropy_coef=0), batch, logp)[1], run(GRPO(kl_coef=0), batch, logp)[1])
