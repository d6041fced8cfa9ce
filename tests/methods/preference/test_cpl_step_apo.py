"""Step-APO against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from toy import table_groups
from worked import close, learn, ln

from posttrain.methods.preference.cpl_step_apo import CPLStepAPO
from posttrain.methods.preference.dpo import DPO

ZERO = torch.zeros(2, 1, dtype=torch.float64)


def test_one_pair_by_hand() -> None:
    # h_w = ln 4 and h_l = −ln 4, so with β = ½ the margin is ln 4; values 0.9 and 0.4 with α = 2 ln 2 take ln 2 off it:
    # σ(ln 2) = ⅔, L = ln 1.5, and dL/dh_w = −β (1 − σ) = −1/6 at each of its tokens.
    batch = table_groups([0.9, 0.4], [[1, 1]] * 2)
    logp, ref = ln([[0.2, 0.2], [0.1, 0.1]]), ln([[0.1, 0.1], [0.2, 0.2]])
    metrics, _, gradient = learn(CPLStepAPO(beta=0.5, alpha=2 * math.log(2)), batch, logp, ref)
    close(metrics["loss/policy"], math.log(1.5))
    close(metrics["margin"], math.log(4))
    close(metrics["gap"], math.log(2))
    close(gradient, [[-1 / 6, -1 / 6], [1 / 6, 1 / 6]])


def test_a_wider_gap_pulls_harder() -> None:
    # At π = π_ref the margin is 0: dL/dh_w = −β σ(α ΔQ), with σ(ln 3) = ¾ and σ(ln 4) = ⅘.
    for gap, pull in ((math.log(3), 0.75), (math.log(4), 0.8)):
        batch = table_groups([gap, 0], [[1]] * 2)
        gradient = learn(CPLStepAPO(beta=0.5, alpha=1), batch, ZERO, ZERO)[2]
        close(gradient, [[-0.5 * pull], [0.5 * pull]])


def test_labels_drawn_from_the_values_rest_at_a_shifted_gap() -> None:
    # The first is preferred with chance p.  With β Δh = x and α ΔQ = a for either order of the labels, the expected
    # gradient −p σ(a − x) + (1 − p) σ(a + x) is 0 at p = σ(a + x) / (σ(a + x) + σ(a − x)).  a = 0 is Bradley–Terry.
    x, a = 0.7, 0.4
    up, down = torch.sigmoid(torch.tensor([a + x, a - x], dtype=torch.float64))
    chance = up / (up + down)
    logp = torch.tensor([[x / 0.3], [0]], dtype=torch.float64)
    first = learn(CPLStepAPO(), table_groups([a, 0], [[1]] * 2), logp, ZERO)[2]
    second = learn(CPLStepAPO(), table_groups([0, a], [[1]] * 2), logp, ZERO)[2]
    close(chance * first + (1 - chance) * second, ZERO)


@pytest.mark.parametrize("sizes", [(), (3, 2)])
def test_without_the_gap_it_is_dpo(sizes: tuple[int, ...]) -> None:
    batch = table_groups([2, 1, 0, 1, 0, 1], [[1]] * 6, group=[0, 0, 0, 1, 1, 2])
    logp, ref = ln([[0.1], [0.2], [0.3], [0.4], [0.5], [0.6]]), ln([[0.3]] * 6)
    mine = learn(CPLStepAPO(alpha=0), batch, logp, ref, sizes)
    theirs = learn(DPO(beta=0.3), batch, logp, ref, sizes)
    close(mine[2], theirs[2])
    close(mine[0]["loss/policy"], theirs[0]["loss/policy"])
