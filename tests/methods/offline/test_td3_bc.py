"""TD3+BC by hand: only the policy's loss differs from TD3's."""

from __future__ import annotations

import pytest
import torch
from table_actions import Fixed, Sum
from table_control import table_transitions

from posttrain.core import Models, Transitions
from posttrain.methods.off_policy.td3 import TD3
from posttrain.methods.offline.td3_bc import TD3BC


def models() -> Models:
    """Two transitions: states 0 and 1, next states 2 and 3; the next update moves the policy too."""
    return Models({"updates": 1.0}, policy=Fixed(0.5, -0.5, 0, 0), policy_target=Fixed(0, 0, 0.9, 0.25),
                  q=Sum([[1.0, 3.0, 0, 0], [2.0, 0.0, 0, 0]]), q_target=Sum([[0, 0, 5.0, 9.0], [0, 0, 4.0, 8.0]]))


def batch() -> Transitions:
    """Actions 0.2 and −0.1."""
    made = table_transitions([1.0, 2.0], [False, True])
    return made.replace(action=torch.tensor([[0.2], [-0.1]], dtype=torch.float64)).counted()


def losses(method: TD3) -> tuple[dict[str, float], Models]:
    networks = models()
    with torch.no_grad():
        prepared = method.prepare(networks, batch())
    loss = method.loss(networks, prepared.counted())
    loss.value.backward()
    return {name: float(term.value.detach()) for name, term in loss.terms.items()}, networks


def test_losses_by_hand() -> None:
    # Q_1(s, a) = 1 + 0.2 and 3 − 0.1, so λ = 2.05 / (½ · 4.1) = 1 where α = 2.05.
    # Q_1(s, π) = 1.5 and 2.5.  L_π = ½ [ 0.3² − 1.5  +  0.4² − 2.5 ] = ½ [ 0.09 + 0.16 − 4 ] = −1.875
    found, networks = losses(TD3BC(pull=2.05))
    assert found["policy"] == pytest.approx(-1.875, abs=1e-12)
    # ∂L_π / ∂π = ½ [ 2 (π − a) − λ ] = ½ [ 0.6 − 1 ] and ½ [ −0.8 − 1 ]
    assert networks.policy.actions.grad.tolist() == pytest.approx([-0.2, -0.9, 0, 0], abs=1e-12)


def test_the_pull_has_no_unit() -> None:
    """All Q ten times as large leaves the policy's gradient as it was: 10 λ / 10."""
    def slope(scale: float) -> torch.Tensor:
        method, networks = TD3BC(), models()
        networks.q.values_.data.mul_(scale)
        with torch.no_grad():
            prepared = method.prepare(networks, batch().replace(action=0 * batch().action)).counted()
        networks.q.fixed = lambda obs, action: scale * action[:, 0].expand(2, -1)
        method.loss(networks, prepared).terms["policy"].value.backward()
        found: torch.Tensor = networks.policy.actions.grad
        return found

    torch.testing.assert_close(slope(10.0), slope(1.0), rtol=0, atol=1e-12)


def test_without_the_pull_of_q_it_clones_and_q_learns_as_in_td3() -> None:
    # ½ [ 0.3² + 0.4² ] = 0.125
    found, _ = losses(TD3BC(pull=0.0))
    theirs, _ = losses(TD3())
    assert found["policy"] == pytest.approx(0.125, abs=1e-12)
    assert found["q"] == theirs["q"]
