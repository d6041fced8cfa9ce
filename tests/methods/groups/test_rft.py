"""RFT's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.rft import RFT


def test_the_mean_is_over_kept_tokens() -> None:
    # Kept: one token of probability ½ and two of ¼: L = −(log ½ + 2 log ¼) / 3 = 5/3 log 2;  dL/dlog π = −1/3.
    batch = table_groups([1, 0, 1], [[1, 0, 0], [1, 1, 1], [1, 0, 1]])
    logp = ln([[0.5, 1, 1], [0.1, 0.1, 0.1], [0.25, 0.9, 0.25]])
    metrics, _, gradient = learn(RFT(), batch, logp)
    close(metrics["loss/policy"], 5 / 3 * math.log(2))
    close(gradient, [[-1 / 3, 0, 0], [0, 0, 0], [-1 / 3, 0, -1 / 3]])


def test_micro_batches_share_one_denominator() -> None:
    # Six kept tokens in completions of 1, 2 and 3, each in a micro-batch of its own.
    batch = table_groups([1, 1, 0, 1], [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]])
    _, _, gradient = learn(RFT(), batch, torch.zeros(4, 3).double(), sizes=(1, 1, 1))
    close(gradient, f64([[-1, 0, 0], [-1, -1, 0], [0, 0, 0], [-1, -1, -1]]) / 6)


def test_the_threshold_must_be_passed() -> None:
    batch = table_groups([0.5, 0.51, 0.7], [[1]] * 3)
    close(learn(RFT(), batch, f64([[0]] * 3))[1].credit[:, 0], [0, 1, 1])
    close(learn(RFT(threshold=0.6), batch, f64([[0]] * 3))[2], [[0], [0], [-1]])


def test_with_nothing_to_keep_it_rests() -> None:
    _, _, gradient = learn(RFT(), table_groups([0, 0], [[1], [1]]), f64([[0], [0]]))
    assert (gradient == 0).all()
