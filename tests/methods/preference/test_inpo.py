"""INPO's mirror-descent step, worked by hand."""

from __future__ import annotations

import torch
from torch import Tensor
from toy import Learner, TablePolicy, table_groups
from worked import close, f64, learn

from posttrain.core import Groups
from posttrain.methods.preference.inpo import INPO
from posttrain.methods.preference.ipo import IPO


def learner(method: INPO, batch: Groups, logp: Tensor, ref: Tensor, anchor: Tensor) -> Learner:
    made = Learner(method, TablePolicy(logp), TablePolicy(ref), anchor=TablePolicy(anchor))
    made.update(batch)
    return made


def test_one_prompt_by_hand() -> None:
    # τ/η = ¼: g_w = −1 + ¼ · 4 + ¾ · 4 = 3, g_l = −2 + ¼ · 4 + ¾ · 0 = −1.  Margin 4, target 1 / (2 · ¼) = 2: L = 4 and
    # dL/dg_w = 4.  The middle answer takes no part.
    batch = table_groups([0.9, 0.5, 0.1], [[1]] * 3)
    made = learner(INPO(eta=0.25, reference_share=0.25), batch, f64([[-1], [-7], [-2]]), f64([[-4], [-1], [-4]]),
                   f64([[-4], [-1], [0]]))
    close(made.metrics["loss/policy"], 4)
    close(made.metrics["margin"], 4)
    close(made.gradient, [4, 0, -4])


def test_optimum_is_the_mirror_descent_step() -> None:
    # π_t draws two answers evenly, P(1 ≻ 2) = p, so P(1 ≻ π_t) − P(2 ≻ π_t) = p − ½.  At
    # log π = κ log π_ref + (1 − κ) log π_t + P / η the gradient vanishes on average over labels.
    p, eta, kappa = 0.8, 0.2, 0.3
    ref, anchor = f64([[-1], [-3]]), f64([[-2], [-2]])
    logp = kappa * ref + (1 - kappa) * anchor + f64([[p - 0.5], [0]]) / eta
    method, labels = INPO(eta=eta, reference_share=kappa), ([1.0, 0.0], [0.0, 1.0])
    gradients = [learner(method, table_groups(each, [[1]] * 2), logp, ref, anchor).gradient for each in labels]
    close(p * gradients[0] + (1 - p) * gradients[1], [0, 0])


def test_with_the_reference_alone_is_ipo() -> None:
    batch = table_groups([1.0, 0.0, 0.0, 2.0], [[1, 1]] * 4, group=[0, 0, 1, 1])
    logp, ref, anchor = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = learner(INPO(eta=0.2, reference_share=1), batch, logp, ref, anchor)
    close(made.gradient.view(4, 2), learn(IPO(tau=0.2), batch, logp, ref)[2])


def test_a_round_s_end_makes_the_policy_its_own_anchor() -> None:
    batch, start, ref = table_groups([1, 0], [[1]] * 2), f64([[-1], [-2]]), f64([[-3], [-1]])
    made = learner(INPO(round_steps=2), batch, start, ref, start)
    close(made.models.anchor.module[0].detach(), start)
    made.update(batch)
    assert torch.equal(made.models.anchor.module[0], made.models.policy.module[0])
    close(made.models.reference.module[0].detach(), ref)
