"""DAPO's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.dapo import DAPO

# Rewards 0 and 1: mean 1/2, sample standard deviation √(2 · 1/4) = √½, so Â = ∓½ / (√½ + 1e-4).
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def of_length(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def test_the_penalty_ramps_up_before_the_limit() -> None:
    # L_max = 10, L_cache = 5: nothing up to 5 tokens, then −1/5 a token down to −1 at 10 and no further.
    mask = of_length(1, 5, 6, 8, 10, 12)
    batch = table_groups([0] * 6, mask, limit=10)
    _, prepared, _ = learn(DAPO(cache_share=0.5), batch, torch.zeros(6, 12).double())
    close(prepared.extra["overlong"], [0, 0, -0.2, -0.6, -1, -1])
    close(prepared.reward, [0] * 6)  # the task's reward stays what it was


def test_a_completion_that_was_cut_off_is_overlong_whatever_its_length() -> None:
    batch = table_groups([0, 0], of_length(2, 2), limit=10).replace(finished=torch.tensor([False, True]))
    metrics, prepared, _ = learn(DAPO(), batch, torch.zeros(2, 2).double())
    close(prepared.extra["overlong"], [-1, 0])
    close(prepared.credit[:, 0], [-A, A])
    close(metrics["overlong"], -0.5)


def test_a_tool_s_tokens_are_not_the_policy_s_length() -> None:
    mask = of_length(10, 10)
    mask[0, 2:8] = False  # four tokens of its own among ten
    batch = table_groups([0, 0], mask, limit=10)
    _, prepared, _ = learn(DAPO(cache_share=0.5), batch, torch.zeros(2, 10).double())
    close(prepared.extra["overlong"], [0, -1])


def test_one_mean_over_all_tokens() -> None:
    batch = table_groups([0, 1], [[1, 0, 0], [1, 1, 1]])
    _, _, gradient = learn(DAPO(), batch, torch.zeros(2, 3).double())
    close(gradient, [[A / 4, 0, 0], [-A / 4, -A / 4, -A / 4]])


def test_clips_higher_above_than_below() -> None:
    # Range [0.8, 1.28].  +A: ratios 1.25 (free) and 1.5 (1.28 A, clipped);  −A: 0.75 (−0.8 A, clipped) and 1.5 (free).
    # L = −¼ (−0.8 − 1.5 + 1.25 + 1.28) A = −0.0575 A.
    batch = table_groups([0, 1], [[1, 1], [1, 1]], logp_old=f64([[0, 0]] * 2))
    metrics, _, gradient = learn(DAPO(), batch, ln([[0.75, 1.5], [1.25, 1.5]]))
    close(metrics["loss/policy"], -0.0575 * A)
    close(metrics["clipped"], 0.5)
    close(gradient, [[0, 1.5 * A / 4], [-1.25 * A / 4, 0]])
