"""DivPO's choice of a pair, worked by hand."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.preference.divpo import DivPO, roles
from posttrain.methods.preference.online_dpo import OnlineDPO


def test_the_rare_among_the_good_over_the_common_among_the_bad() -> None:
    # Rewards 1, 0.8, 0.5, 0.1, 0 and ρ = ¼: 1 and 0.8 are good, 0.1 and 0 bad.  Row 1 is the rarer of the good, row 3
    # the commoner of the bad.  π = π_ref, β = 1: dL/dh = ∓½ for these two alone.
    batch, logp = table_groups([1, 0.8, 0.5, 0.1, 0], [[1]] * 5), ln([[0.5], [0.2], [0.01], [0.4], [0.3]])
    metrics, prepared, gradient = learn(DivPO(beta=1, slack=0.25), batch, logp, logp)
    close(prepared.extra["role"], [0, 1, 0, -1, 0])
    close(metrics["loss/policy"], math.log(2))
    close(gradient[:, 0], [0, -0.5, 0, 0.5, 0])


def test_rarity_is_per_token_and_groups_are_apart() -> None:
    # Row 0 is less likely than row 1 as a whole, but likelier per token.  The other group's rewards are equal.
    logp = f64([[-1, -1], [-1.5, 0], [-2, 0], [-9, 0], [-1, 0]])
    batch = table_groups([1, 1, 0, 5, 5], [[1, 1], [1, 0], [1, 0], [1, 0], [1, 0]], group=[4, 4, 4, 2, 2])
    close(learn(DivPO(), batch, logp, logp)[1].extra["role"], [0, 1, -1, 0, 0])


def test_alike_in_rarity_is_any_good_over_any_bad() -> None:
    # Then the pair is a random one of good and bad; with 0/1 rewards that is online DPO, which shares it out.
    batch = table_groups([1, 1, 0, 0, 0, 0.0, 1.0], [[1]] * 7, group=[0, 0, 0, 0, 0, 1, 1])
    logp = torch.full((7, 1), -2.0, dtype=torch.float64)
    ref = torch.randn(7, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(learn(DivPO(), batch, logp, ref, (5, 2))[2], learn(OnlineDPO(), batch, logp, ref)[2])


def test_without_slack_only_the_best_and_the_worst_count() -> None:
    close(roles(f64([1, 0.99, 0.01, 0]), f64([-1, -9, -1, -9]), torch.zeros(4).long(), 0.0), [1, 0, 0, -1])


def test_half_of_the_range_leaves_no_answer_out_and_none_on_both_sides() -> None:
    # ρ = ½: rewards 1, 0.5 are good, 0.25, 0 bad.  The rarest good is the middle one, the commonest bad that of 0.25.
    close(roles(f64([1, 0.5, 0.25, 0]), f64([-1, -9, -1, -2]), torch.zeros(4).long(), 0.5), [0, 1, -1, 0])
