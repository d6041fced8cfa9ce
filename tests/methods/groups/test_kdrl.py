"""KDRL's two terms, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from toy import Learner, TablePolicy, table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.grpo import GRPO
from posttrain.methods.groups.kdrl import KDRL
from posttrain.methods.imitation.on_policy_distillation import OnPolicyDistillation


def test_both_terms_by_hand() -> None:
    # Â = ∓A, A = ½ / (√½ + 1e-4).  Gaps ln(0.5 / 0.25) = ln 2 and ln(0.5 / 1) = −ln 2: L = 0 + β ½ (ln 2)², and
    # dL/dlog π = −½ Â + β ½ gap.
    a = 0.5 / (math.sqrt(0.5) + 1e-4)
    logp, teacher = ln([[0.5], [0.5]]), ln([[0.25], [1]])
    metrics, _, gradient = learn(KDRL(teacher_coef=0.2), table_groups([0, 1], [[1], [1]]), logp, teacher)
    close(metrics["loss/policy"], 0)
    close(metrics["loss/teacher"], 0.1 * math.log(2) ** 2)
    close(gradient, [[a / 2 + 0.1 * math.log(2)], [-a / 2 - 0.1 * math.log(2)]])


@pytest.mark.parametrize(("spared", "taught"), [("none", [1, 1, 1, 1]), ("answer", [1, 0, 1, 1]),
                                                ("prompt", [0, 0, 1, 1])])
def test_who_is_spared_the_teacher(spared: str, taught: list[int]) -> None:
    # Group 0 has a right answer, group 1 none.  β ½ (ln 2)² over four tokens, of those that are taught.
    batch = table_groups([0, 1, 0, 0], [[1]] * 4, group=[0, 0, 1, 1])
    method = KDRL(teacher_coef=1, spared=spared)  # type: ignore[arg-type]
    metrics, prepared, _ = learn(method, batch, ln([[0.5]] * 4), ln([[0.25]] * 4))
    assert prepared.extra["taught"][:, 0].tolist() == taught
    close(metrics["loss/teacher"], sum(taught) / 8 * math.log(2) ** 2)


def test_over_all_samples_the_teacher_s_gradient_is_that_of_the_reverse_kl() -> None:
    # p = σ(z) = ¾ against ½: dKL/dz = p (1 − p) [ ln(p / ½) − ln((1 − p) / ½) ] = 3/16 ln 3.  Three samples in four
    # make the first choice, dlog p/dz = ¼, and one the other, −¾.  k1 as a loss would give ¾ ¼ − ¼ ¾ = 0.
    logp, teacher = ln([[0.75]] * 3 + [[0.25]]), ln([[0.5]] * 4)
    slope = f64([0.25, 0.25, 0.25, -0.75])
    _, _, gradient = learn(KDRL(teacher_coef=1), table_groups([1] * 4, [[1]] * 4), logp, teacher)
    close(gradient[:, 0] @ slope, 3 / 16 * math.log(3))


def test_limits_are_grpo_and_on_policy_distillation() -> None:
    # Equal lengths, so that the mean over tokens is the mean over rows.
    logp, teacher = ln([[0.5, 0.2], [0.3, 0.9]]), ln([[0.4, 0.1], [0.6, 0.2]])
    batch = table_groups([0, 1], [[1, 1]] * 2).replace(logp_behaviour=logp)
    alone = learn(KDRL(teacher_coef=0, teacher_coef_last=0), batch, logp, teacher)[2]
    close(alone, learn(GRPO(kl_coef=0), batch, logp)[2])
    equal = table_groups([1, 1], [[1, 1]] * 2).replace(logp_behaviour=logp)
    taught = learn(KDRL(teacher_coef=1), equal, logp, teacher)[2]
    close(taught, learn(OnPolicyDistillation(), equal, logp, teacher)[2])


def test_the_teacher_s_weight_falls_to_its_last() -> None:
    # N = 2, from 0.4 to 0.1: 0.4, 0.25, 0.1 and then 0.1 for good.
    policy, teacher = TablePolicy(torch.zeros(1, 1).double()), TablePolicy(torch.ones(1, 1).double())
    learner = Learner(KDRL(teacher_coef=0.4, teacher_coef_last=0.1, anneal_batches=2), policy, teacher=teacher)
    for coef in (0.4, 0.25, 0.1, 0.1):
        learner.update(table_groups([1], [[1]]), lr=0.0)
        close(learner.metrics["loss/teacher"], coef / 2)
