"""AAPO's margin over the reference's answers, worked by hand."""

from __future__ import annotations

import math

import pytest
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.aapo import AAPO
from posttrain.methods.groups.grpo import GRPO

# Rewards 0 and 1: mean 1/2, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


@pytest.mark.parametrize(("reward", "reference", "margin"),
                         [(1, 0, 0.28), (1, 1, 0), (0, 1, -0.2), (0, 0, 0), (0.5, 0.4, 0.1)])
def test_equal_samples_learn_from_the_reference(reward: float, reference: float, margin: float) -> None:
    # Two equal samples: Â = 0, and only m is left.  dL/dlog π = −m / 2 over two sampled tokens.
    batch = table_groups([reward, reward, reference], [[1]] * 3, given=(2,))
    _, prepared, gradient = learn(AAPO(), batch, ln([[0.5]] * 3))
    close(prepared.credit[:, 0], [margin, margin, 0])
    close(gradient, [[-margin / 2], [-margin / 2], [0]])


@pytest.mark.parametrize("sizes", [(), (1, 1)])
def test_by_hand(sizes: tuple[int, ...]) -> None:
    # Samples 0 and 1, the reference 0 and 1: m = mean(0, −0.2) = −0.1 and mean(0.28, 0) = 0.14.  Three sampled tokens
    # of ½: L = ln 2 / 3 · [ (−A − 0.1) + 2 (A + 0.14) ].  The statistics do not see the given rewards.
    batch = table_groups([0, 1, 0, 1], [[1, 0], [1, 1], [1, 1], [1, 1]], given=(2, 3))
    metrics, prepared, gradient = learn(AAPO(), batch, ln([[0.5, 0.5]] * 4), sizes=sizes)
    close(prepared.credit[:, 0], [-A - 0.1, A + 0.14, 0, 0])
    close(metrics["loss/policy"], math.log(2) / 3 * (A + 0.18))
    close(metrics["margin"], 0.02)
    close(gradient, f64([[A + 0.1, 0], [-A - 0.14, -A - 0.14], [0, 0], [0, 0]]) / 3)


def test_each_prompt_has_its_own_reference() -> None:
    # Group 0's reference was wrong, group 1 has none.
    batch = table_groups([1, 0, 1], [[1]] * 3, group=[0, 0, 1], given=(1,))
    close(learn(AAPO(), batch, ln([[0.5]] * 3))[1].credit[:, 0], [0.28, 0, 0])


def test_without_a_reference_the_first_gradient_is_grpo_s() -> None:
    # Equal lengths, so that the mean over tokens is the mean over rows.
    logp = ln([[0.5, 0.1], [0.3, 0.9], [0.2, 0.2]])
    batch = table_groups([0, 1, 0.3], [[1, 1]] * 3)
    close(learn(AAPO(), batch, logp)[2], learn(GRPO(kl_coef=0), batch, logp)[2])
