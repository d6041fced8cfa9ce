"""PROF's choice of samples, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.core.errors import UserError
from posttrain.methods.groups.grpo import GRPO
from posttrain.methods.groups.prof import PROF

# Rewards 0 and 1 once each: mean 1/2, sample standard deviation √½, so Â = ∓A.
A = 0.5 / (math.sqrt(0.5) + 1e-4)


def kept(method: PROF, reward: list[float], process: list[float]) -> torch.Tensor:
    batch = table_groups(reward, [[1]] * len(reward), process=process)
    return learn(method, batch, ln([[0.5]] * len(reward)), ln([[0.5]] * len(reward)))[1].extra["kept"]


@pytest.mark.parametrize("sizes", [(), (1, 1)])
def test_the_inconsistent_are_dropped(sizes: tuple[int, ...]) -> None:
    # Two right and two wrong, R = 2: one of each goes, the right one of 0.2 and the wrong one of 0.9.  Kept are a 1 and
    # a 0, in the order of nobody's score: dL/dlog π = −½ Â / |y|.
    batch = table_groups([1, 1, 0, 0], [[1, 1], [1, 0], [1, 1], [1, 0]], process=[0.2, 0.8, 0.9, 0.1])
    _, prepared, gradient = learn(PROF(kl_coef=0), batch, ln([[0.5, 0.5]] * 4), sizes=sizes)
    close(prepared.extra["kept"], [0, 1, 0, 1])
    close(prepared.credit[:, 0], [0, A, 0, -A])
    close(gradient, [[0, 0], [-A / 2, 0], [0, 0], [A / 2, 0]])


def test_the_cut_evens_out_right_and_wrong() -> None:
    # n₊ = 3, n₋ = 1, R = 2: k = (2 + 2) / 2 = 2 right ones go and the wrong one stays, though its score is high.
    close(kept(PROF(), [1, 1, 1, 0], [0.5, 0.9, 0.3, 1]), [0, 1, 0, 1])
    # The other way round: k = (−2 + 2) / 2 = 0.
    close(kept(PROF(), [0, 0, 0, 1], [0.5, 0.9, 0.3, 0]), [0, 0, 1, 1])
    # All wrong: there is nothing right to drop.  All right and R = 3 of 4: the best is left.
    close(kept(PROF(), [0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4]), [1, 1, 0, 0])
    close(kept(PROF(dropped_share=0.75), [1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4]), [0, 0, 0, 1])
    # n₊ = 1, n₋ = 3, R = 3: k = round((−2 + 3) / 2) = 0, and one of each is left.
    close(kept(PROF(dropped_share=0.75), [1, 0, 0, 0], [0, 0.2, 0.3, 0.4]), [1, 0, 0, 0])


def test_equal_scores_share_the_cut() -> None:
    # Two right of one score, one of which goes; of the wrong the one of 0.9.  Weights ½, ½, 0, 1: mean ½, variance
    # ¼ · 2 / (2 − 1) = ½, as if either had been dropped, and half of the pull for each.
    batch = table_groups([1, 1, 0, 0], [[1]] * 4, process=[0.4, 0.4, 0.9, 0.1])
    _, prepared, gradient = learn(PROF(kl_coef=0), batch, ln([[0.5]] * 4))
    close(prepared.extra["kept"], [0.5, 0.5, 0, 1])
    close(prepared.credit[:, 0], [A, A, 0, -A])
    close(gradient[:, 0], A / 2 * f64([-0.5, -0.5, 0, 1]))


def test_a_task_without_a_scorer_is_refused() -> None:
    batch = table_groups([0, 1], [[1]] * 2)
    batch = batch.replace(extra={name: x for name, x in batch.extra.items() if name != "process"})
    with pytest.raises(UserError, match="no scorer of steps"):
        learn(PROF(), batch, ln([[0.5]] * 2), ln([[0.5]] * 2))


def test_dropping_none_is_grpo() -> None:
    logp, ref = ln([[0.5, 0.1], [0.3, 0.9], [0.2, 0.2]]), ln([[0.4, 0.1], [0.5, 0.5], [0.2, 0.1]])
    batch = table_groups([0, 1, 0.3], [[1, 1], [1, 0], [1, 1]], process=[0.5, 0.1, 0.9], logp_old=logp - 0.1)
    mine, theirs = learn(PROF(dropped_share=0), batch, logp, ref), learn(GRPO(kl_coef=0.001), batch, logp, ref)
    close(mine[2], theirs[2])
    close(mine[0]["loss/kl"], theirs[0]["loss/kl"])
