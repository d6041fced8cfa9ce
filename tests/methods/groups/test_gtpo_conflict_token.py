"""GTPO's conflict tokens and its filter; a TablePolicy's entropy is −log π."""

from __future__ import annotations

import math

import torch
from toy import Learner, TablePolicy, table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.grpo import GRPO
from posttrain.methods.groups.gtpo_conflict_token import GTPOConflictToken, conflicts

# Rewards 0 and 1: mean 1/2, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def found(tokens: list[list[int]], sign: list[int], mask: list[list[int]] | None = None,
          group: list[int] | None = None) -> list[list[int]]:
    own = mask or [[int(token > 0) for token in row] for row in tokens]
    batch = table_groups([0.0] * len(sign), own, token=torch.tensor(tokens), group=group)
    return conflicts(batch, torch.tensor(sign)).long().tolist()


def test_runs_from_both_ends() -> None:
    # Common are the first token and, counted from the end, the last two; the 9 amid a row begins no run.
    assert found([[1, 9, 2, 5, 6], [1, 9, 5, 6, 0]], [1, -1]) == [[1, 1, 0, 1, 1], [1, 1, 1, 1, 0]]
    assert found([[1, 9, 3, 7], [2, 9, 4, 8]], [1, -1]) == [[0, 0, 0, 0], [0, 0, 0, 0]]


def test_it_takes_both_signs_of_one_group() -> None:
    assert found([[1, 2], [1, 3]], [1, 1]) == [[0, 0], [0, 0]]
    assert found([[1, 2], [1, 3]], [1, 0]) == [[0, 0], [0, 0]]
    assert found([[1, 2], [1, 3]], [1, -1], group=[0, 1]) == [[0, 0], [0, 0]]
    # The third row has its own opposite in the first, though its second token is its alone.
    assert found([[1, 2], [1, 3], [1, 4]], [1, -1, -1]) == [[1, 0], [1, 0], [1, 0]]


def test_a_tool_s_token_breaks_no_run() -> None:
    tokens = [[1, 50, 2, 3], [1, 2, 60, 4]]
    assert found(tokens, [1, -1], mask=[[1, 0, 1, 1], [1, 1, 0, 1]]) == [[1, 0, 1, 0], [1, 1, 0, 0]]


def test_weights_by_hand() -> None:
    # Tokens (1, 2, 3) and (1, 4, 3): the outer two are in conflict.  The bad answer is pushed down only at its own
    # token; the good one is pulled up twice as hard at the others.  dL/dlog π = −½ · ⅓ λ Â.
    batch = table_groups([0, 1], [[1, 1, 1]] * 2, token=torch.tensor([[1, 4, 3], [1, 2, 3]]))
    metrics, _, gradient = learn(GTPOConflictToken(entropy_coef=0), batch, ln([[0.5] * 3] * 2))
    close(gradient, A / 6 * f64([[0, 1, 0], [-2, -1, -2]]))
    close(metrics["conflict"], 4 / 6)


def test_the_filter_watches_a_policy_that_began_certain() -> None:
    # A mean entropy of ½ at first; then one answer has 1 > ln 2 and is dropped, and the other loses γ · ½.
    batch = table_groups([0, 1], [[1], [1]], token=torch.tensor([[1], [2]]))
    policy = TablePolicy(f64([[-0.5], [-0.5]]))
    learner = Learner(GTPOConflictToken(entropy_coef=0.2), policy)
    close(learner.update(batch, lr=0.0).credit[:, 0], [-A - 0.1, A - 0.1])
    with torch.no_grad():
        policy.table.copy_(f64([[-1], [-0.5]]))
    learner = Learner(GTPOConflictToken(entropy_coef=0.2), policy)
    learner.models.state["initial_entropy"] = 0.5
    close(learner.update(batch).credit[:, 0], [0, A - 0.1])
    # One that began at (1 + ½) / 2 > ln 2 is never filtered.
    close(learn(GTPOConflictToken(entropy_coef=0.2), batch, f64([[-1], [-0.5]]))[1].credit[:, 0], [-A - 0.2, A - 0.1])


def test_without_shared_tokens_or_bonus_it_is_grpo() -> None:
    batch = table_groups([0, 1, 0.3], [[1, 1], [1, 0], [1, 1]], token=torch.arange(6).view(3, 2))
    logp = ln([[0.5, 0.1]] * 3)
    close(learn(GTPOConflictToken(entropy_coef=0), batch, logp)[2], learn(GRPO(kl_coef=0), batch, logp)[2])
