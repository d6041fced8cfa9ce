"""DanceGRPO's closed forms, worked by hand, through the real loop, and what its source draws."""

from __future__ import annotations

import math
from typing import Any

import torch
from picture_toy import toy_policy
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.dancegrpo import DanceGRPO
from posttrain.rollout.pictures import PictureSource


def test_clips_each_step_and_averages_over_a_row() -> None:
    # Rewards 0 and 2: Â = ∓a, a = 1/(√2 + 1e-8).  Row 0 has one step and row 1 two.  Ratios: ½; ½ and 1½.
    # Gains: min(−½, −0.8) a; min(½, 0.8) a and min(1.5, 1.2) a.  L = −½ (−0.8 a + ½ (½ + 1.2) a) = −0.025 a.
    batch = table_groups([0, 2], [[1, 0], [1, 1]], logp_old=f64([[0, 0]] * 2))
    metrics, _, gradient = learn(DanceGRPO(clip_low=0.2, clip_high=0.2), batch, ln([[0.5, 1.5]] * 2))
    a = 1 / (math.sqrt(2) + 1e-8)
    close(metrics["loss/policy"], -0.025 * a)
    close(gradient, [[0, 0], [-0.125 * a, 0]])


def test_a_group_begins_as_one_noise_and_some_steps_are_learnt() -> None:
    policy = toy_policy(dtype=torch.float32)
    source = PictureSource(policy, lambda picture, label: picture.mean(1), 2, 5, 0, shared_start=True, step_share=0.5)
    batch = source.next(0)
    told: Any = batch.payload
    for unit in (0, 1):
        start = told.state[batch.unit == unit, 0]
        assert torch.equal(start, start[:1].expand_as(start))
    assert not torch.equal(told.state[0, 0], told.state[5, 0])
    assert batch.mask.sum(1).tolist() == [2] * 10  # of four
    assert len({tuple(row) for row in batch.mask.tolist()}) > 1  # not the same for every picture
