"""Pass@k training's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.passk_training import PassKTraining


def advantages(k: int, reward: list[float]) -> torch.Tensor:
    batch = table_groups(reward, [[1]] * len(reward))
    return learn(PassKTraining(k=k), batch, torch.zeros(len(reward), 1).double())[1].credit[:, 0]


def test_one_right_of_four_in_pairs() -> None:
    # 1 − P = C(3, 2) / C(4, 2) = ½, σ = ½.  Right: ½;  wrong: ½ − C(2, 1) / C(3, 1) = ½ − 2/3 = −1/6.
    close(advantages(2, [0, 1, 0, 0]), f64([-1 / 6, 1 / 2, -1 / 6, -1 / 6]) / (0.5 + 1e-6))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("right", [1, 2, 3, 4])
def test_is_the_mean_over_all_sets_that_hold_an_answer(right: int, k: int) -> None:
    """Every set of k among six is drawn, scored 1 if any of it is right, and normalised over the sets."""
    reward = [1.0] * right + [0.0] * (6 - right)
    sets = list(itertools.combinations(range(6), k))
    score = {s: max(reward[i] for i in s) for s in sets}
    mean = sum(score.values()) / len(sets)
    spread = math.sqrt(sum((v - mean) ** 2 for v in score.values()) / len(sets)) + 1e-6
    expected = [sum((score[s] - mean) / spread for s in sets if i in s) / sum(i in s for s in sets) for i in range(6)]
    close(advantages(k, reward), expected)


def test_k_1_is_grpo_s_with_the_population_s_spread() -> None:
    # One right of four: mean ¼, variance 3/16.
    sigma = math.sqrt(3 / 16) + 1e-6
    close(advantages(1, [1, 0, 0, 0]), f64([0.75, -0.25, -0.25, -0.25]) / sigma)


@pytest.mark.parametrize(("k", "reward"), [(2, [1, 1, 1, 0]), (2, [0, 0, 0]), (5, [1, 0, 0]), (3, [1]), (3, [0])])
def test_where_all_sets_score_alike_nothing_is_learnt(k: int, reward: list[float]) -> None:
    # Fewer wrong answers than k; none right; fewer answers than k; one answer.
    assert (advantages(k, reward) == 0).all()


def test_clips_as_grpo_does() -> None:
    # 1 of 3, pairs: 1 − P = C(2, 2) / C(3, 2) = 1/3, σ = √2 / 3.  Right 1/3, wrong 1/3 − C(1, 1) / C(2, 1) = −1/6.
    # Ratio 2 is clipped to 1.2 for the right answer and free for the wrong ones: L = −1/3 (1.2/3 − 2/6 − 2/6) / σ.
    sigma = math.sqrt(2) / 3 + 1e-6
    batch = table_groups([1, 0, 0], [[1]] * 3, logp_old=f64([[0]] * 3))
    metrics, _, gradient = learn(PassKTraining(), batch, ln([[2], [2], [2]]))
    close(metrics["loss/policy"], -1 / 3 * (0.4 - 2 / 3) / sigma)
    close(gradient, f64([[0], [1 / 9], [1 / 9]]) / sigma)
