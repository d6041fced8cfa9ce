"""R²VPO's price of variance, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from toy import Learner, TablePolicy, table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.r2vpo import R2VPO

# Rewards 0 and 1: mean ½, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def test_gradient_is_the_ratio_s_less_the_price_of_its_distance() -> None:
    # Ratios ½ and 3/2 in both rows, so (ρ − 1)² = ¼ throughout.  With λ = 2 and δ = 0.1:
    # L = −mean ρ Â + 2 (¼ − 0.1), mean ρ Â = 0; dL/dlog π = −ρ (Â − 2 λ (ρ − 1)) / 4.
    ratio = f64([[0.5, 1.5]] * 2)
    batch = table_groups([0, 1], [[1, 1]] * 2, logp_old=torch.zeros_like(ratio))
    for sizes in ((), (1, 1)):
        metrics, _, gradient = learn(R2VPO(epochs=1, variance=0.1, first_price=2), batch, ratio.log(), sizes=sizes)
        close(metrics["loss/policy"], 0)
        close(metrics["loss/variance"], 0.3)
        close(gradient, -ratio * (f64([[-A], [A]]) - 4 * (ratio - 1)) / 4)


def test_without_a_price_it_is_the_unclipped_importance_weighted_gradient() -> None:
    ratio = f64([[0.1, 9.0]] * 2)
    batch = table_groups([0, 1], [[1, 1]] * 2, logp_old=torch.zeros_like(ratio))
    _, _, gradient = learn(R2VPO(epochs=1, first_price=0), batch, ratio.log())
    close(gradient, -ratio * f64([[-A], [A]]) / 4)


def test_price_follows_the_excess_and_stays_above_zero() -> None:
    # One token, ρ = 3/2, χ² = ¼ in the first update: λ = 1 + 2 (¼ − 0.05) = 1.4.  Then ρ = 1: λ = 1.4 − 0.1, and with
    # η = 100 the next would be 1.4 + 100 (0 − 0.05) < 0.
    for rate, expected in ((2, (1.4, 1.3)), (100, (21.0, 16.0)), (300, (61.0, 46.0))):
        learner = Learner(R2VPO(epochs=1, variance=0.05, dual_rate=rate), TablePolicy(ln([[1.5]])))
        learner.update(table_groups([0], [[1]], logp_old=ln([[1.0]])), lr=1e-30)
        close(learner.models.state["price"], expected[0])
        learner.update(table_groups([0], [[1]]), lr=1e-30)
        close(learner.models.state["price"], expected[1])
    learner.run.method.after_step(learner.models, {"chi2": -9.0})
    assert learner.models.state["price"] == 0
    for nothing in ({}, {"chi2": math.inf}, {"chi2": math.nan}):
        learner.run.method.after_step(learner.models, nothing)
    assert learner.models.state["price"] == 0


def test_variance_is_twice_the_divergence_to_third_order() -> None:
    # Ten samples of two choices, p = (0.4, 0.6), in proportion.  As π moves by h, χ² − 2 KL(π ‖ π_old) falls as h³.
    p, choice = f64([0.4, 0.6]), torch.tensor([0] * 4 + [1] * 6)
    batch = table_groups([0] * 10, [[1]] * 10, logp_old=p.log()[choice][:, None])
    gaps = []
    for h in (1e-2, 1e-3):
        q = p + f64([h, -h])
        metrics, _, _ = learn(R2VPO(epochs=1), batch, q.log()[choice][:, None])
        gaps.append(abs(metrics["chi2"] - 2 * float((q * (q / p).log()).sum())))
    assert gaps[0] / gaps[1] == pytest.approx(1000, rel=0.1)
