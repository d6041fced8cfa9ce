"""ORPO against numbers worked by hand."""

from __future__ import annotations

import math

from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.preference.orpo import ORPO, log_odds


def test_one_pair_by_hand() -> None:
    # P_w = √(¾ · ⅓) = ½, odds 1; P_l = ¼, odds ⅓.  σ(ln 3) = ¾: the odds term is −λ ln ¾, the other −ln ½.
    # d log odds / d log P = 1 / (1 − P) = 2 and 4/3.  With λ = ½:
    #     dL/dlog P_w = −1 − ½ · ¼ · 2 = −5/4, shared by two tokens;  dL/dlog P_l = ½ · ¼ · 4/3 = 1/6.
    batch = table_groups([1.0, 0.0], [[1, 1], [1, 0]])
    metrics, _, gradient = learn(ORPO(odds_coef=0.5), batch, ln([[0.75, 1 / 3], [0.25, 1]]))
    close(metrics["loss/likelihood"], math.log(2))
    close(metrics["loss/odds"], -0.5 * math.log(0.75))
    close(metrics["margin"], math.log(3))
    close(gradient, [[-5 / 8, -5 / 8], [1 / 6, 0]])


def test_without_odds_is_fine_tuning_on_the_winners() -> None:
    # Rewards 2, 1, 0: the pairs are won twice by row 0 and once by row 1, so −mean log P has weights ⅔ and ⅓; row 3's
    # group has no pair.
    batch = table_groups([2.0, 1.0, 0.0, 1.0], [[1]] * 4, group=[0, 0, 0, 1])
    for sizes in ((), (3,)):
        close(learn(ORPO(odds_coef=0), batch, ln([[0.5]] * 4), sizes=sizes)[2][:, 0], f64([-2, -1, 0, 0]) / 3)


def test_odds_of_the_certain_and_the_impossible() -> None:
    # A small P has odds P; a certain one is kept finite: log(1e6) to a millionth.
    close(log_odds(f64([-60.0])), f64([-60.0]))
    assert abs(float(log_odds(f64([0.0]))) - math.log(1e6)) < 1e-5
