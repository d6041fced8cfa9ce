"""LOOP's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import torch
from picture_toy import PictureLearner, toy_pictures, toy_policy
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.loop_diffusion import LoopDiffusion
from posttrain.methods.groups.rloo import RLOO


def test_clips_each_step_and_sums_them() -> None:
    # Rewards 0 and 2: Â = ∓2.  Ratios ½ and 1½, range [0.8, 1.2]: L = −½ · 2 (−0.8 − 1.5 + 0.5 + 1.2) = 0.6;
    # dL/dlog π = −½ ρ Â where not clipped.
    batch = table_groups([0, 2], [[1, 1], [1, 1]], logp_old=f64([[0, 0]] * 2))
    metrics, _, gradient = learn(LoopDiffusion(clip_low=0.2, clip_high=0.2), batch, ln([[0.5, 1.5]] * 2))
    close(metrics["loss/policy"], 0.6)
    close(gradient, [[0, 1.5], [-0.5, 0]])


def test_one_update_is_rloo() -> None:
    batch = toy_pictures("diffusion")
    gradients = []
    for method in (LoopDiffusion(), RLOO(kl_coef=0.0)):
        learner = PictureLearner(method, toy_policy("diffusion"))
        learner.update(batch)
        gradients.append(learner.gradient)
    assert torch.allclose(*gradients, rtol=1e-10, atol=1e-14)
    assert float(gradients[0].norm()) > 0
