"""Flow-GRPO's closed forms on two steps of one pixel, worked by hand, through the real loop."""

from __future__ import annotations

import math

import torch
from picture_toy import PictureLearner, free_flow, hand_pictures, toy_pictures, toy_policy
from worked import close

from posttrain.methods.groups.flow_grpo import FlowGRPO
from posttrain.methods.groups.grpo import GRPO

A = 1 / (math.sqrt(2) + 1e-4)  # of rewards 0 and 2: Â = ∓A


def test_gradient_and_kl_by_hand() -> None:
    # d log π/dv = (x' − μ)/σ² · dμ/dv.  Step 0: ±½ / 1 · (−½) = ∓¼.  Step 1: 1 / ½ · (−¾) = −1½ and 0.
    # dL/dlog π = −Â/4, so dL/dv₀ = −¼ (A ¼ + A ¼) = −A/8 and dL/dv₁ = −¼ (−A)(−1½) = −⅜ A.
    # Against v_ref = (1, 2): μ − μ_ref = ½ and 1½, KL = ⅛ and 2¼, their mean 1.1875; β/2 of its slopes
    # (μ − μ_ref)/σ² · dμ/dv = −¼ and −2¼ is −0.005 and −0.045.
    learner = PictureLearner(FlowGRPO(), free_flow(0, 0), free_flow(1, 2))
    learner.update(hand_pictures([0, 2], [[1, 1], [1, 1]]))
    close(learner.gradient, [-A / 8 - 0.005, -0.375 * A - 0.045])
    close(learner.metrics["kl"], 1.1875)
    close(learner.metrics["loss/kl"], 0.04 * 1.1875)


def test_without_kl_it_is_grpo() -> None:
    batch, gradients = toy_pictures(), []
    for method in (FlowGRPO(kl_coef=0.0), GRPO(kl_coef=0.0)):
        learner = PictureLearner(method, toy_policy())
        learner.update(batch)
        gradients.append(learner.gradient)
    assert torch.equal(*gradients)


def test_kl_of_a_real_denoiser_is_that_of_its_gaussians() -> None:
    policy, other, batch = toy_policy(), toy_policy(seed=1), toy_pictures()
    found = policy.step_kl(other, batch)
    mine, theirs = policy._steps(batch), other._steps(batch)
    exact = torch.distributions.kl_divergence(torch.distributions.Normal(mine.mean, mine.std[:, None]),
                                              torch.distributions.Normal(theirs.mean, theirs.std[:, None])).mean(1)
    assert torch.allclose(found[batch.mask], exact, rtol=1e-10)
