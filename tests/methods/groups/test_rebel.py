"""REBEL's regression, worked by hand."""

from __future__ import annotations

import torch
from toy import table_groups
from worked import close, f64, learn

from posttrain.methods.groups.rebel import REBEL
from posttrain.methods.groups.rloo import RLOO


def test_one_pair_by_hand() -> None:
    # h = 3 (two tokens) and 1, η = 2, rewards 0 and 1: (3 − 1) / 2 − (0 − 1) = 2.  L = 4, dL/dh_1 = 2 · 2 / η = 2.
    batch = table_groups([0, 1], [[1, 1], [1, 0]], logp_old=f64([[-2, -3], [-2, 0]]))
    metrics, _, gradient = learn(REBEL(step_size=2, epochs=1), batch, f64([[-1, -1], [-1, 0]]))
    close(metrics["loss/policy"], 4)
    close(gradient, [[2, 2], [-2, 0]])


def test_rests_at_the_mirror_descent_step() -> None:
    # log π − log π_t = η r + c for any c, equal rewards included, in groups of any size.
    reward, c = f64([0, 1, 1, 0.5, -2, 3, 7]), f64([2, 2, 2, 2, -1, -1, 4])
    batch = table_groups(reward.tolist(), [[1]] * 7, group=[0, 0, 0, 0, 1, 1, 2], logp_old=torch.zeros(7, 1).double())
    metrics, _, gradient = learn(REBEL(step_size=0.3, epochs=1), batch, (0.3 * reward + c)[:, None], sizes=(4, 3))
    close(metrics["loss/policy"], 0)
    close(gradient, torch.zeros(7, 1))


def test_first_gradient_is_rloo() -> None:
    # At h = 0: dL/dh_i = −2 / (P η) Σ_j (r_i − r_j) = −2 (n − 1) / (P η) · (r_i − mean of the others).  Two prompts of
    # n = 3 have P = 6 pairs: −2/3η of that; RLOO has −1/6, a share of 6 rows.  So REBEL's is 4/η of it.
    batch = table_groups([0, 1, 1, 0.5, -2, 3], [[1]] * 6, group=[0, 0, 0, 1, 1, 1])
    logp = torch.full((6, 1), -1.0, dtype=torch.float64)
    close(learn(REBEL(step_size=0.5, epochs=1), batch, logp)[2], 4 / 0.5 * learn(RLOO(kl_coef=0), batch, logp)[2])
