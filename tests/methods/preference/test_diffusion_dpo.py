"""Diffusion-DPO's closed forms on two draws of one pixel, worked by hand, through the real loop."""

from __future__ import annotations

import math

from picture_toy import PictureLearner, free_flow, hand_pictures
from worked import close

from posttrain.methods.preference.diffusion_dpo import DiffusionDPO


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_loss_and_gradient_by_hand() -> None:
    # f = −1, −1 on row 0 and −1, −9 on row 1.  v_ref = (1, 2): f_ref = 0, −9 and −4, −25, so h = −1, 8 and 3, 16.
    # Row 1 is preferred: h_w − h_l = 4 and 8, times β/2 = ¼: 1 and 2.  L = ½ (log(1 + e^−1) + log(1 + e^−2)).
    # The margins' slopes are ¼ (df_w − df_l)/dv = ¼ (−2 − 2) = −1 and ¼ (−6 + 2) = −1: dL/dv = σ(−1)/2 and σ(−2)/2.
    learner = PictureLearner(DiffusionDPO(beta=0.5), free_flow(0, 0), free_flow(1, 2))
    learner.update(hand_pictures([0, 2], [[1, 1], [1, 1]]))
    close(learner.metrics["loss/policy"], (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2)
    close(learner.gradient, [sigmoid(-1) / 2, sigmoid(-2) / 2])
    assert learner.metrics["right"] == 1


def test_begins_at_log_2() -> None:
    learner = PictureLearner(DiffusionDPO(), free_flow(0.3, -0.4))
    learner.update(hand_pictures([0, 2], [[1, 1], [1, 1]]))
    close(learner.metrics["loss/policy"], math.log(2))


def test_a_draw_that_either_lacks_is_left_out() -> None:
    # Only the first draw is common: margin 1.
    learner = PictureLearner(DiffusionDPO(beta=0.5), free_flow(0, 0), free_flow(1, 2))
    learner.update(hand_pictures([0, 2], [[1, 0], [1, 1]]))
    close(learner.metrics["loss/policy"], math.log(1 + math.exp(-1)))


def test_swapping_the_rewards_turns_the_preference() -> None:
    learner = PictureLearner(DiffusionDPO(beta=0.5), free_flow(0, 0), free_flow(1, 2))
    learner.update(hand_pictures([2, 0], [[1, 1], [1, 1]]))
    close(learner.metrics["loss/policy"], (math.log(1 + math.e) + math.log(1 + math.exp(2))) / 2)
