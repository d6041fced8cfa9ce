"""On-policy distillation against exact reverse KLs, worked by enumerating all samples."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.imitation.gkd import GKD
from posttrain.methods.imitation.on_policy_distillation import OnPolicyDistillation


def test_by_hand() -> None:
    # d = ln(0.5 / 0.25) = ln 2 and ln(0.5 / 0.8) = −ln 1.6: L = mean d, dL/dlog π = d / 2.  With γ = ½ the first token
    # also bears half of the second's: d = ln 2 − ½ ln 1.6.  A tool's token in between bears nothing.
    logp, teacher = ln([[0.5, 0.1, 0.5]]), ln([[0.25, 0.9, 0.8]])
    batch = table_groups([0], [[1, 0, 1]]).replace(logp_behaviour=logp)
    metrics, _, gradient = learn(OnPolicyDistillation(), batch, logp, teacher)
    close(metrics["loss/policy"], (math.log(2) - math.log(1.6)) / 2)
    close(metrics["reverse_kl"], (math.log(2) - math.log(1.6)) / 2)
    close(gradient, [[math.log(2) / 2, 0, -math.log(1.6) / 2]])
    _, _, gradient = learn(OnPolicyDistillation(kl_discount=0.5), batch, logp, teacher)
    close(gradient, [[math.log(2) / 2 - math.log(1.6) / 4, 0, -math.log(1.6) / 2]])


def test_over_all_samples_is_the_gradient_of_gkd_s_reverse_kl() -> None:
    # p = σ(z) = ¾ and the teacher has ½: of four samples three make the first choice.  dlog p/dz = ¼ and
    # dlog(1 − p)/dz = −¾.  GKD needs one sample for the same, as dlog p/dz = ¼ of its own entry.
    logp, teacher = ln([[0.75]] * 3 + [[0.25]]), ln([[0.5]] * 4)
    batch = table_groups([0] * 4, [[1]] * 4).replace(logp_behaviour=logp)
    slope = learn(OnPolicyDistillation(), batch, logp, teacher)[2][:, 0] @ f64([0.25, 0.25, 0.25, -0.75])
    exact = learn(GKD(mixture=1, on_policy=1), table_groups([0], [[1]]), logp[:1], teacher[:1])[2][0, 0] * 0.25
    close(slope, exact)


def test_undiscounted_it_is_the_gradient_of_the_kl_of_whole_answers() -> None:
    # Two tokens of two choices, π = ½ each.  The teacher has 0.8 for the first choice, then 0.6 after it and 0.3 after
    # the other.  KL(p) = KL(p ‖ 0.8) + p K_a + (1 − p) K_b with K the second tokens' KLs; at p = σ(z) = ½
    #     dKL/dz = p (1 − p) [ ln(p / 0.8) − ln((1 − p) / 0.2) + K_a − K_b ].
    # The loss is a mean over tokens, two an answer: half of that.
    first, second = (0.8, 0.8, 0.2, 0.2), (0.6, 0.4, 0.3, 0.7)
    logp, teacher = ln([[0.5, 0.5]] * 4), torch.stack([ln(first), ln(second)], 1)
    batch = table_groups([0] * 4, [[1, 1]] * 4).replace(logp_behaviour=logp)
    _, _, gradient = learn(OnPolicyDistillation(kl_discount=1), batch, logp, teacher)
    k_a = 0.5 * math.log(0.5 / 0.6) + 0.5 * math.log(0.5 / 0.4)
    k_b = 0.5 * math.log(0.5 / 0.3) + 0.5 * math.log(0.5 / 0.7)
    exact = 0.25 * (math.log(0.5 / 0.8) - math.log(0.5 / 0.2) + k_a - k_b)
    close(gradient[:, 0] @ f64([0.5, 0.5, -0.5, -0.5]), exact / 2)


def test_a_student_that_is_its_teacher_rests() -> None:
    logp = ln([[0.3, 0.6]])
    batch = table_groups([1], [[1, 1]]).replace(logp_behaviour=logp)
    close(learn(OnPolicyDistillation(kl_discount=1), batch, logp, logp)[2], [[0, 0]])
