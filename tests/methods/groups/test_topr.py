"""TOPR's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.reinforce import Reinforce
from posttrain.methods.groups.topr import TOPR


def test_only_bad_completions_are_tapered() -> None:
    # R = ½, −½, −½.  Whole completions are now 0.1, ¼ and 4 times as likely as when sampled (log μ = 0):
    # weights 1 (good), ¼, and 1 (4, truncated).  dL/dlog π = −1/3 w R on every token;
    # L = −1/3 [ ½ log 0.1 − ½ · ¼ log ¼ − ½ log 4 ].
    logp = ln([[0.1, 1], [0.5, 0.5], [2, 2]])
    metrics, _, gradient = learn(TOPR(), table_groups([1, 0, 0], [[1, 1]] * 3), logp)
    close(gradient, [[-1 / 6] * 2, [1 / 24] * 2, [1 / 6] * 2])
    good, bad, likely = ln([0.1, 0.25, 4]).tolist()
    close(metrics["loss/policy"], -(good / 2 - bad / 8 - likely / 2) / 3)
    close(metrics["weight"], 2.25 / 3)


def test_the_ratio_is_to_the_sampler_and_leaves_tools_out() -> None:
    # Own tokens, now and as sampled: 0.5 / 1 · 0.5 / 0.5 = ½ and 0.5 / 0.8 · 0.25 / 0.25 = 5/8.
    batch = table_groups([0, 0], [[1, 0, 1], [1, 0, 1]])
    batch = batch.replace(logp_behaviour=ln([[1, 0.01, 0.5], [0.8, 0.01, 0.25]]))
    _, _, gradient = learn(TOPR(), batch, ln([[0.5, 1, 0.5], [0.5, 1, 0.25]]))
    close(gradient, [[0.125, 0, 0.125], [0.15625, 0, 0.15625]])  # −½ w R with R = −½


def test_without_a_baseline_good_samples_are_reinforce_s_however_old() -> None:
    generator = torch.Generator().manual_seed(0)
    logp, mask = torch.randn(4, 5, generator=generator).double(), torch.rand(4, 5, generator=generator) < 0.7
    batch = table_groups([0, 1, 0.5, 2], mask)
    close(learn(TOPR(baseline=0), batch, logp)[2], learn(Reinforce(), batch, logp)[2])


def test_the_baseline_decides_what_is_good() -> None:
    _, prepared, _ = learn(TOPR(baseline=0.25), table_groups([0, 1, 0.25], [[1]] * 3), f64([[0]] * 3))
    close(prepared.credit[:, 0], [-0.25, 0.75, 0])
