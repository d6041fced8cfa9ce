"""SAC's three losses by hand."""

from __future__ import annotations

import math

import pytest
import torch
from table_control import Table, TableActor, table_transitions

from posttrain.core import Models
from posttrain.methods.off_policy.sac import SAC
from posttrain.policies.control import Temperature

ALPHA = 0.5


def models() -> Models:
    """Two transitions: states 0 and 1, next states 2 and 3."""
    temperature = Temperature().double()
    temperature.log.data.fill_(math.log(ALPHA))
    return Models(policy=TableActor([-1.0, -2.0, -0.4, -0.6]), temperature=temperature,
                  q=Table([[1.0, 2.0, 0, 0], [3.0, 1.0, 0, 0]]), q_target=Table([[0, 0, 5.0, 9.0], [0, 0, 4.0, 8.0]]))


def test_losses_by_hand() -> None:
    # y_0 = 1 + 0.9 (min(5, 4) − 0.5 · (−0.4)) = 1 + 0.9 · 4.2 = 4.78;  y_1 = 2, which terminated.
    # L_Q = ½ [ (1 − 4.78)² + (3 − 4.78)² + (2 − 2)² + (1 − 2)² ] = ½ [ 14.2884 + 3.1684 + 0 + 1 ] = 9.2284
    # L_π = ½ [ 0.5 · (−1) − 1  +  0.5 · (−2) − 1 ] = ½ [ −1.5 − 2 ] = −1.75
    # L_α = −½ log 0.5 [ (−1 − 1) + (−2 − 1) ] = −½ · (−0.693147) · (−5) = −1.732868
    loss = SAC(discount=0.9).loss(models(), table_transitions([1.0, 2.0], [False, True]).counted())
    found = {name: float(term.value.detach()) for name, term in loss.terms.items()}
    assert found["q"] == pytest.approx(9.2284, abs=1e-12)
    assert found["policy"] == pytest.approx(-1.75, abs=1e-12)
    assert found["temperature"] == pytest.approx(-2.5 * math.log(2), abs=1e-12)
    assert float(loss.metrics["entropy"].value) == pytest.approx(1.5)


def test_each_network_is_moved_by_its_own_loss() -> None:
    # ∂L_π / ∂ log π_i = ½ (α − ∂Q/∂a): the table's action moves with its log π, at slope 1.  ½ (0.5 − 1) = −0.25.
    # ∂L_Q / ∂Q = ½ · 2 (Q − y): for state 0 −3.78 and −1.78; for state 1 0 and −1.
    # ∂L_α / ∂ log α = −½ Σ (log π + H̄) = 2.5, so α falls: the policy is more random than H̄ = −1 asks... the mean of
    # log π, −1.5, lies below 1.
    networks = models()
    SAC(discount=0.9).loss(networks, table_transitions([1.0, 2.0], [False, True]).counted()).value.backward()
    assert networks.policy.table.grad.tolist() == pytest.approx([-0.25, -0.25, 0, 0])
    assert networks.q.values_.grad.tolist()[0] == pytest.approx([-3.78, 0, 0, 0])
    assert networks.q.values_.grad.tolist()[1] == pytest.approx([-1.78, -1, 0, 0])
    assert float(networks.temperature.log.grad) == pytest.approx(2.5)
    assert networks.q_target.values_.grad is None


def test_the_target_follows() -> None:
    networks = models()
    SAC(polyak=0.25).after_step(networks, {})
    # Q̄ ← ¾ Q̄ + ¼ Q: 0 and 1 in state 0 give 0.25; 5 and 0 in state 2 give 3.75.
    assert networks.q_target.values_[0].tolist() == [0.25, 0.5, 3.75, 6.75]
    assert torch.equal(networks.q.values_[0], torch.tensor([1.0, 2.0, 0, 0], dtype=torch.float64))
