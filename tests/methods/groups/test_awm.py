"""AWM's closed forms on two draws of one pixel, worked by hand, through the real loop."""

from __future__ import annotations

import math

import torch
from picture_toy import PictureLearner, free_flow, hand_pictures, toy_pictures, toy_policy
from worked import close

from posttrain.core import Models
from posttrain.methods.groups.awm import AWM

A = 1 / (math.sqrt(2) + 1e-4) / 5  # of rewards 0 and 2: Â = ∓A


def test_gradient_by_hand() -> None:
    # df/dv = 2 (target − v): 2, −2 on row 0 and −2, −6 on row 1; dL/df = −Â/4.
    # dL/dv₀ = −¼ (−2A − 2A) = A, dL/dv₁ = −¼ (2A − 6A) = A.  Against v_ref = (1, 2) the drift is 1 and 4, mean 2½,
    # its slope β (v − v_ref) = −0.003 and −0.006.
    learner = PictureLearner(AWM(), free_flow(0, 0), free_flow(1, 2))
    learner.update(hand_pictures([0, 2], [[1, 1], [1, 1]]))
    close(learner.gradient, [A - 0.003, A - 0.006])
    close(learner.metrics["loss/kl"], 0.003 * 2.5)
    close(learner.metrics["fit"], -3.0)  # −(1 + 1 + 1 + 9)/4


def test_clips_what_has_moved() -> None:
    # ρ = 3 everywhere, c = 1: gains min(−3, −2) A and min(3, 2) A, so L = −(−3A + 2A)/2 = A/2.
    method, policy = AWM(kl_coef=0.0), free_flow(0, 0)
    models = Models(policy=policy)
    with torch.no_grad():
        batch = method.prepare(models, hand_pictures([0, 2], [[1, 1], [1, 1]]))
    batch = batch.replace(logp_old=batch.logp_behaviour).with_extra(fit=batch.extra["fit"] - math.log(3))
    loss = method.loss(models, batch)
    close(loss.value.detach(), A / 2)


def test_one_update_is_the_weighted_pretraining_loss() -> None:
    policy, batch = toy_policy(), toy_pictures()
    learner = PictureLearner(AWM(kl_coef=0.0), policy)
    prepared = learner.update(batch)
    fresh = toy_policy()
    (-(prepared.credit * fresh.fit(batch))[batch.mask].mean()).backward()
    expected = torch.cat([p.grad.reshape(-1) for p in fresh.parameters() if p.grad is not None])
    assert torch.allclose(learner.gradient, expected, rtol=1e-9, atol=1e-14)
    assert float(expected.norm()) > 0
