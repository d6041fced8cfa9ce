"""COPO: the term between prompts, and its blend with GRPO's."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.methods.groups.copo import COPO
from posttrain.methods.groups.grpo import GRPO


def test_agreeing_prompts_are_held_against_each_other() -> None:
    # One prompt all right, one all wrong, each with one answer: H = 0, R = 1 and 0, mean ½, std √½.
    # B = ±½ / (√½ + 1e-6), Â = 0, w = σ(5 (0 − 1)) = 1 / (1 + e⁵).  dL/dlog π = −(1 − w) B / 4.
    batch = table_groups([1, 1, 0, 0], [[1]] * 4, group=[3, 3, 1, 1], answer=[0, 0, 0, 0])
    learner = Learner(COPO(), TablePolicy(torch.zeros(4, 1).double()))
    learner.update(batch)
    pull = (1 - 1 / (1 + math.exp(5))) * 0.5 / (math.sqrt(0.5) + 1e-6) / 4
    expected = torch.tensor([-pull, -pull, pull, pull], dtype=torch.float64)
    assert_close(learner.gradient, expected, rtol=1e-10, atol=1e-12)


def test_consistency_scales_a_prompt_s_worth() -> None:
    # Prompt 0: shares ½, ¼, ¼: H = 3/2 bits, G = 4: λ = ¾ / 2 = 3/8, R = ½ (1 − 9/16) = 7/32.
    # Prompt 1: one answer, all right: R = 1.  Mean 39/64, deviations ∓25/64, std √2 · 25/64.
    batch = table_groups([1, 1, 0, 0, 1, 1], [[1]] * 6, group=[0] * 4 + [1] * 2, answer=[0, 0, 1, 2, 0, 0])
    learner = Learner(COPO(), TablePolicy(torch.zeros(6, 1).double()))
    extra = learner.update(batch).extra
    b = 25 / 64 / (math.sqrt(2) * 25 / 64 + 1e-6)
    assert extra["between"].tolist() == pytest.approx([-b] * 4 + [b] * 2, rel=1e-10)
    near, far = 1 / (1 + math.exp(-5 * 0.5)), 1 / (1 + math.exp(5))
    assert extra["blend"].tolist() == pytest.approx([near] * 4 + [far] * 2, rel=1e-10)


def test_a_blend_of_one_is_grpo() -> None:
    generator = torch.Generator().manual_seed(0)
    logp, old = 0.3 * torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    batch = table_groups([1, 0, 0.5, 1, 0, 0], [[1, 1, 1]] * 6, group=[0, 0, 0, 1, 1, 1], logp_old=old)
    gradients = []
    for method in (COPO(steepness=1e6, centre=0, bound=100), GRPO(kl_coef=0)):  # every group has two answers or more
        learner = Learner(method, TablePolicy(logp))
        learner.update(batch)
        gradients.append(learner.gradient)
    assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)


def test_a_huge_ratio_is_bounded_where_the_advantage_is_negative() -> None:
    # w = 1 (H = 1 bit, b = 0, k large).  Â = ∓a, a = ½ / (√½ + 1e-4); ratios 10 and 1, c = 3:
    # the gains are max(−10 a, −3 a) = −3 a and a, so L = −½ (−3 a + a) = a, and only the second row has a gradient.
    logp = torch.tensor([[math.log(10.0)], [0.0]], dtype=torch.float64)
    batch = table_groups([0, 1], [[1], [1]], logp_old=torch.zeros_like(logp))
    learner = Learner(COPO(steepness=1e6, centre=0), TablePolicy(logp))
    learner.update(batch)
    a = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert learner.metrics["loss/within"] == pytest.approx(a, rel=1e-10)
    assert_close(learner.gradient, torch.tensor([0, -a / 2], dtype=torch.float64), rtol=1e-10, atol=1e-12)
