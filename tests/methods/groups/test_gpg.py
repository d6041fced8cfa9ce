"""GPG's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import torch
from toy import table_groups
from worked import close, f64, learn

from posttrain.methods.groups.gpg import GPG


def test_alpha_makes_up_for_groups_of_equal_rewards() -> None:
    # Six completions, two of them in a group that differs: α = 6 / 2 = 3, and Â = ∓3 · ½.
    # Solved groups count as idle too, so α is not 6 / 3, the count over that of completions with a reward.
    batch = table_groups([0, 1, 1, 1, 0, 0], [[1]] * 6, group=[0, 0, 1, 1, 2, 2])
    _, prepared, gradient = learn(GPG(), batch, torch.zeros(6, 1).double())
    close(prepared.credit[:, 0], [-1.5, 1.5, 0, 0, 0, 0])
    close(gradient[:, 0], [0.25, -0.25, 0, 0, 0, 0])


def test_one_mean_over_all_tokens() -> None:
    # Rewards 0 and 1, α = 1, four tokens: dL/dlog π = −Â / 4;  L = −¼ (−½ · (−1) + ½ · (−6)) with log π = −1 and −2.
    batch = table_groups([0, 1], [[1, 0, 0], [1, 1, 1]])
    metrics, _, gradient = learn(GPG(), batch, f64([[-1, 0, 0], [-2, -2, -2]]))
    close(metrics["loss/policy"], 0.625)
    close(gradient, [[1 / 8, 0, 0], [-1 / 8, -1 / 8, -1 / 8]])


def test_idle_groups_of_like_length_change_nothing() -> None:
    alone = table_groups([0, 1, 1], [[1, 1]] * 3)
    among = table_groups([0, 1, 1, 1, 1, 0, 0], [[1, 1]] * 7, group=[0, 0, 0, 1, 1, 2, 2])
    _, _, gradient = learn(GPG(), alone, torch.zeros(3, 2).double())
    close(learn(GPG(), among, torch.zeros(7, 2).double())[2][:3], gradient)


def test_with_nothing_to_learn_it_rests() -> None:
    _, _, gradient = learn(GPG(), table_groups([1, 1], [[1], [1]]), f64([[0], [0]]))
    assert (gradient == 0).all()
