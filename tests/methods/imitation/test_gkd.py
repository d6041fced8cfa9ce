"""GKD's divergences, worked by hand; a TablePolicy has two choices at every decision, log π and log(1 − π)."""

from __future__ import annotations

import math

import pytest
import torch
from toy import table_groups
from worked import close, learn, ln

from posttrain.core import Groups
from posttrain.methods.imitation.gkd import GKD

Q, P = 0.5, 0.8  # the student's and the teacher's chance of the decision that was made


def one_sample() -> Groups:
    return table_groups([0], [[1]])


def divergence(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_limit_0_is_the_forward_kl() -> None:
    # KL(P ‖ Q) = 0.8 ln 1.6 + 0.2 ln 0.4.  d/dq = −P/q + (1 − P)/(1 − q) = −1.6 + 0.4 and dq/dlog q = ½: −0.6.
    metrics, _, gradient = learn(GKD(mixture=0, on_policy=1), one_sample(), ln([[Q]]), ln([[P]]))
    close(metrics["loss/sampled"], 0.8 * math.log(1.6) + 0.2 * math.log(0.4))
    close(gradient, [[-0.6]])


def test_limit_1_is_the_reverse_kl() -> None:
    # KL(Q ‖ P) = ½ ln(½ / 0.8) + ½ ln(½ / 0.2).  d/dq = ln(q / P) − ln((1 − q) / (1 − P)) = ln 0.625 − ln 2.5 = −ln 4,
    # times dq/dlog q = ½: −ln 2.
    metrics, _, gradient = learn(GKD(mixture=1, on_policy=1), one_sample(), ln([[Q]]), ln([[P]]))
    close(metrics["loss/sampled"], 0.5 * math.log(0.625) + 0.5 * math.log(2.5))
    close(gradient, [[-math.log(2)]])


def test_a_mixture_by_hand() -> None:
    # β = ¼: M = ¼ · 0.8 + ¾ · ½ = 0.575.  D = ¼ KL(0.8 ‖ 0.575) + ¾ KL(½ ‖ 0.575).  By the envelope of the mixture
    # dD/dq = ¾ [ ln(q / M) − ln((1 − q) / (1 − M)) ], times dq/dlog q = ½.
    metrics, _, gradient = learn(GKD(mixture=0.25, on_policy=1), one_sample(), ln([[Q]]), ln([[P]]))
    close(metrics["loss/sampled"], 0.25 * divergence(P, 0.575) + 0.75 * divergence(Q, 0.575))
    close(gradient, [[0.375 * (math.log(Q / 0.575) - math.log((1 - Q) / 0.425))]])


@pytest.mark.parametrize(("mixture", "limit"), [(1e-7, 0), (1 - 1e-7, 1)])
def test_the_limits_are_reached(mixture: float, limit: float) -> None:
    # D / β and D / (1 − β) differ from the two KLs by a term of the order of 1e-7.
    logp, teacher = ln([[Q]]), ln([[P]])
    near = learn(GKD(mixture=mixture, on_policy=1), one_sample(), logp, teacher)[2] / 1e-7
    there = learn(GKD(mixture=limit, on_policy=1), one_sample(), logp, teacher)[2]
    torch.testing.assert_close(near, there, rtol=1e-6, atol=0)


def test_equal_policies_rest() -> None:
    for mixture in (0, 0.5, 1):
        metrics, _, gradient = learn(GKD(mixture=mixture), one_sample(), ln([[0.3]]), ln([[0.3]]))
        close(metrics["divergence"], 0)
        close(gradient, [[0]])


@pytest.mark.parametrize("sizes", [(), (1, 2)])
def test_given_and_sampled_tokens_have_a_mean_each(sizes: tuple[int, ...]) -> None:
    # One given token and three sampled, one of them after a tool's: forward KL gradients of −0.6 each, weighed ¼ over
    # one given token and ¾ over three sampled.
    batch = table_groups([1, 0, 0], [[1, 0, 0], [1, 0, 1], [1, 0, 0]], given=(0,))
    logp, teacher = ln([[Q] * 3] * 3), ln([[P] * 3] * 3)
    _, _, gradient = learn(GKD(mixture=0, on_policy=0.75), batch, logp, teacher, sizes)
    g = 0.75 / 3 * -0.6
    close(gradient, [[0.25 * -0.6, 0, 0], [g, 0, g], [g, 0, 0]])
