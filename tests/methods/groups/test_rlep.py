"""RLEP's groups of samples and replays, worked by hand."""

from __future__ import annotations

import math

import pytest
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.dapo import DAPO
from posttrain.methods.groups.rlep import RLEP


@pytest.mark.parametrize("sizes", [(), (1, 2)])
def test_a_replay_lifts_a_group_that_is_all_wrong(sizes: tuple[int, ...]) -> None:
    # Samples 0, 0 and a replay 1: mean ⅓, squared deviations 1/9, 1/9, 4/9 over 2: std √⅓.  Â = −⅓, −⅓, ⅔ over that.
    # Four tokens, dL/dlog π = −Â / 4 at π = π_old.
    batch = table_groups([0, 0, 1], [[1, 0], [1, 1], [1, 0]], given=(2,))
    _, prepared, gradient = learn(RLEP(), batch, ln([[0.5, 0.2]] * 3), sizes=sizes)
    credit = f64([-1, -1, 2]) / 3 / (math.sqrt(1 / 3) + 1e-4)
    close(prepared.credit[:, 0], credit)
    close(gradient, -credit[:, None] / 4 * f64([[1, 0], [1, 1], [1, 0]]))


def test_a_replay_is_clipped_as_if_it_were_a_sample() -> None:
    # Â = −A, +A with A = ½ / (√½ + 1e-4).  The replay's ratio 1.5 is clipped at 1.28 and gives no gradient; the bad
    # sample's 20 is not, but counts as 10 at most: L = −½ (−10 A + 1.28 A).
    a = 0.5 / (math.sqrt(0.5) + 1e-4)
    batch = table_groups([0, 1], [[1], [1]], given=(1,), logp_old=f64([[-4], [-4]]))
    metrics, _, gradient = learn(RLEP(), batch, f64([[math.log(20) - 4], [math.log(1.5) - 4]]))
    close(metrics["loss/policy"], 4.36 * a)
    close(gradient, [[0], [0]])


def test_given_rows_of_no_worth_have_no_part() -> None:
    # With or without a rejected answer: the same advantages and the same two tokens in the mean.
    logp = ln([[0.5], [0.2], [0.3]])
    _, prepared, gradient = learn(RLEP(), table_groups([0, 1, 0], [[1]] * 3, given=(1, 2)), logp)
    alone = learn(RLEP(), table_groups([0, 1], [[1]] * 2, given=(1,)), logp[:2])
    close(prepared.credit[:2, 0], alone[1].credit[:, 0])
    close(gradient[:2], alone[2])
    assert (gradient[2] == 0).all()


def test_without_replays_it_is_dapo() -> None:
    # Short answers, so that DAPO has no penalty.
    logp = ln([[0.5, 0.9, 0.1], [0.5, 0.3, 0.2], [0.2, 0.2, 0.2]])
    batch = table_groups([0, 1, 0.3], [[1, 1, 1], [1, 1, 0], [1, 0, 1]], logp_old=ln([[0.4] * 3] * 3))
    close(learn(RLEP(), batch, logp)[2], learn(DAPO(), batch, logp)[2])
