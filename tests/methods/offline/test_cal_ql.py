"""Cal-QL: what is lifted, and CQL as its limit."""

from __future__ import annotations

import math

import pytest
import torch
from test_cql import batch, models

from posttrain.methods.offline.cal_ql import CalQL
from posttrain.methods.offline.cql import CQL


def lifted(*to_go: float) -> torch.Tensor:
    given = batch()
    given = given.replace(noise=0 * given.noise)
    return CalQL().soft_maximum(models(), given.with_extra(to_go=torch.tensor(to_go, dtype=torch.float64)))


def test_the_policys_actions_are_lifted_to_what_was_earned() -> None:
    # With noise 0, Q is 1 and −2 at all draws, whose density is ½.  R = 0.5 is below the first Q, R = 0 above the
    # second: log 1/3 [ 2 e^{−2} + 2 e^0 + 2 e^0 ] there, since even draws are not lifted.
    assert lifted(0.5, 0.0)[0].tolist() == pytest.approx(
        [1 + math.log(2), math.log(2 * (math.exp(-2) + 2) / 3)], abs=1e-12)


@pytest.mark.parametrize("known", [True, False])
def test_where_nothing_is_known_of_returns_it_is_cql(known: bool) -> None:
    given = batch()
    if known:
        given = given.with_extra(to_go=torch.full((2,), -torch.inf, dtype=torch.float64))
    assert torch.equal(CalQL().soft_maximum(models(), given), CQL().soft_maximum(models(), given))


def test_lifted_values_are_not_pushed_further_down() -> None:
    """R above every Q: only the even third is pushed."""
    networks = models()
    given = batch().replace(noise=0 * batch().noise)
    given = given.with_extra(to_go=torch.full((2,), 50.0, dtype=torch.float64)).counted()
    CalQL(conservatism=1.0).loss(networks, given).terms["conservatism"].value.backward()
    # ½ [ share of the even third, which is e^{−49} of the whole and less, − 1 ]
    assert networks.q.values_.grad[0, :2].tolist() == pytest.approx([-0.5, -0.5], abs=1e-12)
