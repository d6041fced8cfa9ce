"""Reg-GRPO's fit, by hand and by what it does not depend on."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, f64, learn

from posttrain.methods.groups.deepvideo_r1 import DeepVideoR1
from posttrain.methods.groups.rebel import REBEL


def test_one_pair_by_hand() -> None:
    # h = 1 + 2 and 1: centred ±1, variance 2, ε = 1: Ĥ = ±1/√3.  Â = ∓A, so each miss is A + 1/√3 in size:
    # L = (A + 1/√3)².  With c = ±(h_1 − h_2)/2, Ĥ = c / √(2c² + 1), dĤ/dc = (2c² + 1)^−3/2 = 3^−3/2, so
    # dL/dc = 2 (A + 1/√3) 3^−3/2, dc/dh_1 = ½.
    a = 0.5 / (math.sqrt(0.5) + 1e-4)
    batch = table_groups([0, 1], [[1, 1], [1, 0]], logp_old=f64([[-2, -3], [-2, 0]]))
    metrics, _, gradient = learn(DeepVideoR1(kl_coef=0, floor=1, epochs=1), batch, f64([[-1, -1], [-1, 0]]))
    slope = (a + 3**-0.5) * 3**-1.5
    close(metrics["loss/policy"], (a + 3**-0.5) ** 2)
    close(gradient, [[slope, slope], [-slope, 0]])


def test_rests_where_log_ratios_are_an_increasing_line_of_rewards() -> None:
    # h = 2 r + c with any c in each group.  Standardised, both sides agree but for the two guards against 0.
    reward, c = f64([0, 1, 1, 0.5, -2, 3]), f64([2, 2, 2, 2, -1, -1])
    batch = table_groups(reward.tolist(), [[1]] * 6, group=[0, 0, 0, 0, 1, 1], logp_old=torch.zeros(6, 1).double())
    method = DeepVideoR1(kl_coef=0, floor=1e-6, epochs=1)
    metrics, _, gradient = learn(method, batch, (2 * reward + c)[:, None], sizes=(4, 2))
    assert metrics["loss/policy"] < 1e-7
    assert gradient.abs().max() < 1e-3
    down, _, _ = learn(method, batch, (-2 * reward + c)[:, None], sizes=(4, 2))  # a decreasing one misses by 2 Â
    torch.testing.assert_close(down["loss/policy"], 4 * 0.75 * 4 / 6 + 4 * 0.5 * 2 / 6, rtol=1e-3, atol=0)


def test_a_constant_added_to_a_group_s_log_ratios_changes_nothing() -> None:
    batch = table_groups([0, 1, 0.3], [[1]] * 3, logp_old=f64([[-2], [-3], [-1]]))
    logp, method = f64([[-1.5], [-3.5], [-1.2]]), DeepVideoR1(kl_coef=0, epochs=1)
    close(learn(method, batch, logp)[2], learn(method, batch, logp - 0.7)[2])


def test_starts_as_rebel_on_standardised_rewards() -> None:
    # At h = 0 dĤ_i/dh_j = (1_ij − 1/n) / ε, so dL/dh_i = −2 Â_i / (n ε).  REBEL's there is −2 Σ_j (Â_i − Â_j) / (P η)
    # = −2 n Â_i / (P η): the same at η = ε but for n² / P = 3, n = 3 answers making P = 3 pairs.
    batch = table_groups([0, 1, 0.3], [[1, 1]] * 3)
    logp = torch.full((3, 2), -1.0, dtype=torch.float64)
    _, prepared, gradient = learn(DeepVideoR1(kl_coef=0, floor=0.5, epochs=1), batch, logp)
    close(gradient, -2 * prepared.credit / 3 / 0.5)
    scored = batch.replace(reward=prepared.credit[:, 0])
    close(learn(REBEL(step_size=0.5, epochs=1), scored, logp)[2], 3 * gradient)


def test_penalty_is_k3_per_token() -> None:
    # One answer has nothing to be held against: only β k3 is left, d = log π − log π_ref = ln 2 and 0.
    batch = table_groups([1], [[1, 1]])
    metrics, _, _ = learn(DeepVideoR1(kl_coef=0.5, epochs=1), batch, f64([[0.0, -1]]), f64([[-math.log(2), -1]]))
    close(metrics["loss/kl"], 0.5 * (0.5 - 1 + math.log(2)) / 2)
    close(metrics["loss/policy"], 0)
