"""Advantages from verdicts on pairs."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain import ops
from posttrain.methods.groups.grpo import GRPO
from posttrain.methods.groups.think_rm import ThinkRM, from_verdicts


def test_counts_wins_whatever_the_rewards_distance() -> None:
    # Rewards 5, 5, −100 and 0.1: d = (0, 0, 1, 1), (0, 0, 1, 1), (−1, −1, 0, −1), (−1, −1, 1, 0); Σ d² = 10 of them,
    # s² = 10 / (2 · 4 · 3) = 5/12, wins less losses 2, 2, −3, −1 over 4.  The other prompt has one answer.
    batch = table_groups([5, 5, -100, 0.1, 3], [[1]] * 5, group=[0, 0, 0, 0, 1])
    logp = torch.full((5, 1), -1.0, dtype=torch.float64)
    for sizes in ((), (3, 1)):  # the lone answer is silent
        _, prepared, gradient = learn(ThinkRM(), batch, logp, sizes=sizes)
        expected = f64([2, 2, -3, -1, 0]) / 4 / math.sqrt(5 / 12 + 1e-6)
        close(prepared.credit[:, 0], expected)
        close(gradient[:, 0], -expected / 5)


def test_differences_as_verdicts_are_grpo() -> None:
    reward, group = f64([3, 1, 4, 1.5, 9, -2]), torch.tensor([0, 0, 0, 0, 1, 1])
    difference = (reward[:, None] - reward) * (group[:, None] == group)
    centred, deviation = reward - ops.group_mean(reward, group), ops.group_std(reward, group)
    close(from_verdicts(difference, group), centred / (deviation**2 + 1e-6).sqrt())


def test_right_or_wrong_rewards_give_grpo_s_gradient() -> None:
    # d_ij = r_i − r_j there.  Rewards 0, 1, 1: s² = 1/3; GRPO divides by √(1/3) + 1e-4 instead.
    batch = table_groups([0, 1, 1], [[1]] * 3)
    logp = torch.full((3, 1), -1.0, dtype=torch.float64)
    theirs = learn(GRPO(kl_coef=0), batch, logp)[2]
    scale = (math.sqrt(1 / 3) + 1e-4) / math.sqrt(1 / 3 + 1e-6)
    close(learn(ThinkRM(), batch, logp)[2], theirs * scale)


def test_verdicts_that_contradict_one_another_cancel() -> None:
    # Rock, paper, scissors: every advantage is 0.  Any antisymmetric verdicts sum to 0.
    circle = f64([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    close(from_verdicts(circle, torch.zeros(3, dtype=torch.long)), [0, 0, 0])
    noise = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(from_verdicts(noise - noise.t(), torch.zeros(5, dtype=torch.long)).sum(), 0)


def test_a_huge_ratio_on_a_worse_answer_pushes_no_further() -> None:
    # Two answers, Â = ±a, ratios 9 and 9: the better is clipped at 1.2 a, the worse held at −3 a, without gradient.
    a = 0.5 / math.sqrt(0.5 + 1e-6)
    batch = table_groups([1, 0], [[1]] * 2, logp_old=ln([[0.1], [0.1]]))
    metrics, _, gradient = learn(ThinkRM(), batch, ln([[0.9], [0.9]]))
    close(metrics["loss/policy"], -(1.2 - 3) * a / 2)
    close(gradient, [[0], [0]])
