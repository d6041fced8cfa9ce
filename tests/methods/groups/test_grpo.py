"""GRPO's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, language_learner, relative_error, table_groups, toy_groups, toy_model

from posttrain.core import Groups
from posttrain.methods.groups.grpo import GRPO
from posttrain.policies.causal_lm import CausalLM

# Rewards 0 and 1: mean 1/2, sample standard deviation √(2 · 1/4) = √½, so Â = ∓½ / (√½ + 1e-4).
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def f64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def run(method: GRPO, batch: Groups, logp: Tensor, logp_ref: Tensor | None = None, sizes: tuple[int, ...] = ()
        ) -> tuple[Learner, Tensor]:
    """The learner after one update, and the gradient with respect to log π, [B, T]."""
    learner = Learner(method, TablePolicy(logp, sizes), None if logp_ref is None else TablePolicy(logp_ref))
    learner.update(batch)
    return learner, learner.gradient.view(logp.shape)


def test_advantages() -> None:
    # Rewards (0, 0, 0, 1): mean 1/4; squared deviations 3 · 1/16 + 9/16 = 3/4, over n − 1 = 3: variance 1/4, std 1/2.
    # Â = −0.25 / 0.5001 three times and 0.75 / 0.5001.
    batch = table_groups([0, 0, 0, 1], [[1]] * 4)
    prepared = Learner(GRPO(kl_coef=0), TablePolicy(torch.zeros(4, 1).double())).update(batch)
    assert_close(prepared.credit[:, 0], f64([[-0.25, -0.25, -0.25, 0.75]])[0] / 0.5001)


def test_groups_do_not_see_each_other() -> None:
    # Two interleaved groups with rewards (0, 1) and (10, 30): the second has deviations ∓10 and std √200 = 10 √2.
    batch = table_groups([0, 10, 1, 30], [[1]] * 4, group=[7, 3, 7, 3])
    prepared = Learner(GRPO(kl_coef=0), TablePolicy(torch.zeros(4, 1).double())).update(batch)
    b = 10 / (math.sqrt(200) + 1e-4)
    assert_close(prepared.credit[:, 0], f64([[-A, -b, A, b]])[0])


def test_clips_both_sides_for_both_signs() -> None:
    # ε_low = 0.2, ε_high = 0.28: the range is [0.8, 1.28].
    #   Â = −A, ratios 0.5, 1, 1.5: min(−0.5 A, −0.8 A) = −0.8 A (clipped), −A, min(−1.5 A, −1.28 A) = −1.5 A
    #   Â = +A, ratios 0.5, 1.5:    min(0.5 A, 0.8 A) = 0.5 A,  min(1.5 A, 1.28 A) = 1.28 A (clipped)
    # L = −½ [ (−0.8 − 1 − 1.5) / 3 + (0.5 + 1.28) / 2 ] A = −½ (−1.1 + 0.89) A = 0.105 A.
    # dL/dlog π = −½ · 1/|y| · ρ Â where the unclipped side is the smaller, 0 where the clipped one is.
    logp = f64([[0.5, 1.0, 1.5], [0.5, 1.5, 1.0]]).log()
    batch = table_groups([0, 1], [[1, 1, 1], [1, 1, 0]], logp_old=torch.zeros_like(logp))
    learner, gradient = run(GRPO(clip_low=0.2, clip_high=0.28, kl_coef=0), batch, logp)
    assert learner.metrics["loss/policy"] == pytest.approx(0.105 * A)
    assert learner.metrics["clipped"] == pytest.approx(2 / 5)
    assert learner.metrics["ratio"] == pytest.approx(1.0)
    assert_close(gradient, f64([[0, A / 6, 1.5 * A / 6], [-0.5 * A / 4, 0, 0]]))


def test_kl_term() -> None:
    # Equal rewards leave only the KL term.  d = log π_ref − log π = −log 2 and +log 2:
    #   k3 = exp(d) − 1 − d = 1/2 − 1 + log 2   and   2 − 1 − log 2
    # L = β · ½ (k3₁ + k3₂) = β · ½ · ½ = β / 4.   dk3/dlog π = 1 − exp(d) = ½ and −1.
    logp, logp_ref = f64([[math.log(0.5)], [math.log(0.25)]]), f64([[math.log(0.25)], [math.log(0.5)]])
    learner, gradient = run(GRPO(kl_coef=0.3), table_groups([1, 1], [[1], [1]]), logp, logp_ref)
    assert learner.metrics["loss/kl"] == pytest.approx(0.3 / 4)
    assert learner.metrics["loss/policy"] == 0
    assert_close(gradient, 0.3 / 2 * f64([[0.5], [-1.0]]))


def test_denominators() -> None:
    # One token and three: every completion weighs ½, its tokens share that.  At ratio 1, dL/dlog π = −½ Â / |y|.
    batch = table_groups([0, 1], [[1, 0, 0], [1, 1, 1]])
    _, gradient = run(GRPO(kl_coef=0), batch, torch.zeros(2, 3).double())
    assert_close(gradient, f64([[A / 2, 0, 0], [-A / 6, -A / 6, -A / 6]]))


def test_a_tool_token_is_left_out_of_the_length() -> None:
    # The second of three tokens is a tool's: |y| = 2 for the first row.
    batch = table_groups([0, 1], [[1, 0, 1], [1, 1, 1]])
    _, gradient = run(GRPO(kl_coef=0), batch, torch.zeros(2, 3).double())
    assert_close(gradient, f64([[A / 4, 0, A / 4], [-A / 6, -A / 6, -A / 6]]))


def test_first_gradient_is_the_policy_gradient() -> None:
    """−mean_i Â_i mean_t ∇ log π(y_it), every completion scored alone and differentiated by itself."""
    learner, batch = language_learner(GRPO(kl_coef=0)), toy_groups()
    prepared = learner.update(batch)
    net = toy_model()
    policy, weights = CausalLM(net, None), list(net.weights)
    expected = torch.zeros_like(learner.gradient)
    for row in range(len(batch)):
        logp = policy.log_prob(batch.take(torch.tensor([row])))[0]
        mean = logp[batch.mask[row]].mean()
        flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(mean, weights)])
        expected -= prepared.credit[row, 0] * flat / len(batch)
    assert relative_error(learner.gradient, expected) < 1e-12


def test_three_and_five_rows_are_eight() -> None:
    generator = torch.Generator().manual_seed(3)
    logp, old, ref = torch.randn(3, 8, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(8, 5, generator=generator) < 0.7
    batch = table_groups([0, 1, 0.5, 1, 0, 0, 1, 0.2], mask, group=[0, 0, 0, 0, 1, 1, 1, 1], logp_old=old)
    whole, expected = run(GRPO(), batch, logp, ref)
    parts, gradient = run(GRPO(), batch, logp, ref, sizes=(3, 5))
    assert_close(gradient, expected, rtol=1e-14, atol=1e-16)
    assert parts.metrics == pytest.approx(whole.metrics, rel=1e-13)
