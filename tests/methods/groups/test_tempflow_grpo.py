"""TempFlow-GRPO's closed forms on two steps of one pixel, worked by hand, through the real loop."""

from __future__ import annotations

import math

from picture_toy import PictureLearner, free_flow, hand_pictures
from worked import close

from posttrain.methods.groups.tempflow_grpo import TempFlowGRPO

A = 1 / (math.sqrt(2) + 1e-4)  # of rewards 0 and 2: Â = ∓A


def test_each_group_teaches_its_own_step_by_its_noise() -> None:
    # Group 0 drew step 0, deviation 1, group 1 step 1, deviation √½; the mean is (1 + √½)/2.
    # Slopes of log π as in test_flow_grpo: step 0 ∓¼, step 1 −1½ and 0.  dL/dlog π = −w Â/4:
    # dL/dv₀ = −w₀ A/8, dL/dv₁ = −⅜ w₁ A.
    learner = PictureLearner(TempFlowGRPO(), free_flow(0, 0))
    learner.update(hand_pictures([0, 2, 0, 2], [[1, 0], [1, 0], [0, 1], [0, 1]], group=[0, 0, 1, 1]))
    mean = (1 + math.sqrt(0.5)) / 2
    close(learner.gradient, [-A / 8 / mean, -0.375 * A * math.sqrt(0.5) / mean])


def test_advantages_are_bounded() -> None:
    learner = PictureLearner(TempFlowGRPO(max_advantage=0.25), free_flow(0, 0))
    prepared = learner.update(hand_pictures([0, 2], [[1, 0], [1, 0]]))
    close(prepared.credit[:, 0], [-0.25, 0.25])
    close(prepared.extra["weight"][:, 0], [1.0, 1.0])  # steps of one deviation
