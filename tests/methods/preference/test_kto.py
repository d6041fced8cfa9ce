"""KTO against numbers worked by hand."""

from __future__ import annotations

import math

from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.preference.kto import KTO

REF = [[1.0]] * 4


def test_values_by_hand() -> None:
    # h = ln 4, ln 4, −ln 4, 0.  All rows are given, so z = 0.  With β = 1:
    #     desirable (reward 1):    σ(h) = 4/5 and 1/5;  undesirable (0): σ(−h) = 1/5 and 1/2
    #     L = ¼ [ 1/5 λ_D + 4/5 λ_U + 4/5 λ_D + 1/2 λ_U ],   dL/dh = −¼ λ_D σ'(h) or +¼ λ_U σ'(h), σ' = 4/25 or 1/4
    batch = table_groups([1, 0, 1, 0], [[1]] * 4, given=[0, 1, 2, 3])
    metrics, _, gradient = learn(KTO(beta=1, desirable=2, undesirable=3), batch, ln([[4], [4], [0.25], [1]]), ln(REF))
    close(metrics["point"], 0)
    close(metrics["loss/policy"], (2 * 1 + 3 * 1.3) / 4)
    close(gradient[:, 0], f64([-2 * 4 / 25, 3 * 4 / 25, -2 * 4 / 25, 3 / 4]) / 4)


def test_reference_point_is_the_mean_drift_of_fresh_samples() -> None:
    # Rows 0 and 1 were sampled: z = (ln 4 + ln 1) / 2 = ln 2.  Rows 2 and 3 were given and are not in it.  β = 1:
    #     σ(ln 4 − ln 2) = 2/3;  σ(ln 2 − 0) = 2/3;  σ(ln 8 − ln 2) = 4/5;  σ(ln 2 − ln 8) = 1/5.
    batch = table_groups([1, 0, 1, 0], [[1]] * 4, given=[2, 3])
    for sizes in ((), (1, 3)):  # z is that of the whole batch, however it is split
        metrics, prepared, gradient = learn(KTO(beta=1), batch, ln([[4], [1], [8], [8]]), ln(REF), sizes)
        close(prepared.extra["point"], [math.log(2)] * 4)
        close(metrics["value"], (2 / 3 + 2 / 3 + 4 / 5 + 1 / 5) / 4)
        close(gradient[:, 0], f64([-2 / 9, 2 / 9, -4 / 25, 4 / 25]) / 4)  # z carries no gradient


def test_reference_point_is_never_negative() -> None:
    batch = table_groups([1, 0, 1, 0], [[1]] * 4)
    close(learn(KTO(), batch, ln([[0.5]] * 4), ln(REF))[1].extra["point"], [0] * 4)


def test_threshold_labels() -> None:
    # At h = 0 the gradient of every answer is ∓β/4 / 4: down in loss for a reward above the threshold, up at or below.
    batch = table_groups([0.3, 0.7, -1, 5], [[1]] * 4)
    gradient = learn(KTO(beta=0.8, threshold=0.3), batch, ln(REF), ln(REF))[2]
    close(gradient[:, 0], f64([0.05, -0.05, 0.05, -0.05]))
