"""REFUEL's regression of first replies on whole returns."""

from __future__ import annotations

import torch
from toy import table_groups
from worked import close, f64, learn

from posttrain.methods.groups.rebel import REBEL
from posttrain.methods.groups.refuel import REFUEL, first_turn


def test_first_turn() -> None:
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert first_turn(mask).tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]


def test_one_turn_is_rebel() -> None:
    # (h / η − r)² is (h − η r)² / η².
    batch = table_groups([0, 1, 0.5, 2, 1], [[1, 1]] * 5, group=[0, 0, 0, 1, 1], logp_old=f64([[-2, -1]] * 5))
    logp = f64([[-1, -1], [-2, -3], [-1, -2], [-1, -1], [-3, -1]])
    for step_size in (1, 0.5):
        ours = learn(REFUEL(step_size=step_size, epochs=1), batch, logp, sizes=(3, 2))
        theirs = learn(REBEL(step_size=step_size, epochs=1), batch, logp, sizes=(3, 2))
        close(ours[0]["loss/policy"], step_size**2 * theirs[0]["loss/policy"])
        close(ours[2], step_size**2 * theirs[2])


def test_only_the_first_reply_is_trained_on_what_followed() -> None:
    # h = 2 and 1 of the first turns; the second turn's move of 5 counts nothing.  η = 2, R = 0 and 3:
    # 2 − 1 − 2 (0 − 3) = 7, L = 49, dL/dh = ±14.
    batch = table_groups([0, 3], [[1, 1, 0, 1], [1, 0, 1, 1]], logp_old=torch.zeros(2, 4).double())
    metrics, _, gradient = learn(REFUEL(step_size=2, epochs=1), batch, f64([[1, 1, 9, 5], [1, 9, 5, 5]]))
    close(metrics["loss/policy"], 49)
    close(gradient, [[14, 14, 0, 0], [-14, 0, 0, 0]])


def test_rests_where_replies_moved_by_their_return_less_any_baseline() -> None:
    reward = f64([1, 4, -2])
    batch = table_groups(reward.tolist(), [[1, 0, 1]] * 3, logp_old=torch.zeros(3, 3).double())
    logp = torch.stack([0.3 * (reward - 7), f64([9, 9, 9]), f64([1, -1, 2])], 1)
    metrics, _, gradient = learn(REFUEL(step_size=0.3, epochs=1), batch, logp)
    close(metrics["loss/policy"], 0)
    close(gradient, torch.zeros(3, 3))
