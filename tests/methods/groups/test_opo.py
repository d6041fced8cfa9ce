"""OPO's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import torch
from toy import table_groups
from worked import close, f64, learn

from posttrain.methods.groups.dr_grpo import DrGRPO
from posttrain.methods.groups.opo import OPO


def test_the_baseline_weighs_rewards_by_length() -> None:
    # Lengths 1, 2, 1 (the third row's middle token is a tool's), rewards 1, 0, 0: b = 1/4.  dL/dlog π = −Â / 4.
    batch = table_groups([1, 0, 0], [[1, 0], [1, 1], [0, 1]])
    _, prepared, gradient = learn(OPO(), batch, f64([[0, 0]] * 3))
    close(prepared.credit[:, 0], [0.75, -0.25, -0.25])
    close(gradient, f64([[-0.75, 0], [0.25, 0.25], [0, 0.25]]) / 4)


def test_groups_have_their_own_baselines_and_one_alone_has_no_gradient() -> None:
    # (2, 0) with lengths 1 and 3: b = 1/2;  (0, 4) with lengths 1 and 1: b = 2;  9 alone: b = 9.
    mask = [[1, 0, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0], [1, 0, 0]]
    batch = table_groups([2, 0, 0, 4, 9], mask, group=[0, 1, 0, 1, 2])
    _, prepared, _ = learn(OPO(), batch, torch.zeros(5, 3).double())
    close(prepared.credit[:, 0], [1.5, -2, -0.5, 2, 0])


def test_with_equal_lengths_it_is_the_group_s_mean() -> None:
    batch = table_groups([0, 1, 0.5, 0.25], [[1, 1, 1]] * 4)
    logp = torch.zeros(4, 3).double()
    close(learn(OPO(), batch, logp)[1].credit, learn(DrGRPO(), batch, logp)[1].credit)


def test_pushes_up_as_many_tokens_as_down() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(6, 7, generator=generator) < 0.6
    batch = table_groups([0, 1, 0.5, 0, 1, 1], mask, group=[0, 0, 0, 1, 1, 1])
    _, _, gradient = learn(OPO(), batch, torch.zeros(6, 7).double())
    assert gradient.abs().sum() > 0.1
    close(gradient[:3].sum(), 0)
    close(gradient[3:].sum(), 0)
