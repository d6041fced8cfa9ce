"""Critique-GRPO's two kinds of rows, worked by hand."""

from __future__ import annotations

import math

import pytest
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.critique_grpo import CritiqueGRPO
from posttrain.methods.groups.dr_grpo import DrGRPO


@pytest.mark.parametrize("sizes", [(), (1, 2)])
def test_samples_and_a_refinement_by_hand(sizes: tuple[int, ...]) -> None:
    # Samples 0 and 0 and a refinement 1: Â = −1/3, −1/3, 2/3, L_max = 4.  γ = 0.1 and tokens of 0.1 and 0.9:
    # f = 1/2 and 9/10, df/dlog p = 0.1 · 0.1 / 0.2² = 1/4 and 0.1 · 0.9 / 1² = 0.09.
    # L = −⅓ · ¼ [ −⅓ − ⅓ · 2 + ⅔ (0.5 + 0.9) ] = (1 − 2.8 / 3) / 12.
    batch = table_groups([0, 0, 1], [[1, 0], [1, 1], [1, 1]], given=(2,), limit=4)
    logp = ln([[0.5, 0.5], [0.2, 0.7], [0.1, 0.9]])
    metrics, _, gradient = learn(CritiqueGRPO(entropy_coef=0), batch, logp, sizes=sizes)
    close(metrics["loss/policy"], (1 - 2.8 / 3) / 12)
    close(gradient, f64([[1 / 3, 0], [1 / 3, 1 / 3], [-2 / 3 * 0.25, -2 / 3 * 0.09]]) / 12)


def test_ratios_are_not_clipped_and_a_refinement_has_none() -> None:
    # Â = −⅓, −⅓, ⅔.  ρ = 5 and 1/5 for the samples; what π_old said of the refinement, f = ½, plays no part.
    batch = table_groups([0, 0, 1], [[1]] * 3, given=(2,), limit=1, logp_old=ln([[0.1], [0.5], [0.3]]))
    metrics, _, gradient = learn(CritiqueGRPO(entropy_coef=0), batch, ln([[0.5], [0.1], [0.1]]))
    close(metrics["loss/policy"], -(-(5 + 0.2) / 3 + 2 / 3 * 0.5) / 3)
    close(gradient, [[5 / 9], [0.2 / 9], [-2 / 9 * 0.25]])


def test_rare_but_plausible_tokens_learn_most() -> None:
    # df/dlog p is γ p / (p + γ)²: ¼ at p = γ, and as little at 100 γ as at γ / 100.
    for gamma in (0.1, 0.002):
        logp = ln([[gamma], [gamma / 100], [0.5]])
        batch = table_groups([1, 1, 0], [[1]] * 3, given=(0, 1), limit=1)
        _, prepared, gradient = learn(CritiqueGRPO(half_at=gamma, entropy_coef=0), batch, logp)
        slope = -gradient[:2, 0] * 3 / prepared.credit[:2, 0]
        close(slope, [0.25, 0.01 / 1.01**2])


def test_entropy_is_rewarded() -> None:
    # Equal rewards leave the bonus; a TablePolicy's entropy is −log π: L = −η ½ (ln 2 + ln 4).
    metrics, _, gradient = learn(CritiqueGRPO(entropy_coef=0.2), table_groups([1], [[1, 1]]), ln([[0.5, 0.25]]))
    close(metrics["loss/entropy"], -0.3 * math.log(2))
    close(gradient, [[0.1, 0.1]])


def test_without_refinements_the_first_gradient_is_dr_grpo_s() -> None:
    batch, logp = table_groups([0, 1, 0.3], [[1, 1], [1, 0], [1, 1]]), ln([[0.5, 0.1]] * 3)
    close(learn(CritiqueGRPO(entropy_coef=0), batch, logp)[2], learn(DrGRPO(), batch, logp)[2])
