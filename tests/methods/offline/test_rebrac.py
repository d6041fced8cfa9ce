"""ReBRAC by hand, and TD3 as its limit."""

from __future__ import annotations

import math

import pytest
import torch
from table_actions import Fixed, Sum
from table_control import table_transitions

from posttrain.core import Models, Transitions
from posttrain.methods.off_policy.td3 import TD3
from posttrain.methods.offline.rebrac import ReBRAC


def models() -> Models:
    """Two transitions: states 0 and 1, next states 2 and 3; the next update moves the policy too."""
    return Models({"updates": 1.0}, policy=Fixed(0.5, -0.5, 0, 0), policy_target=Fixed(0, 0, 0.5, 0.25),
                  q=Sum([[1.0, 3.0, 0, 0], [2.0, 1.0, 0, 0]]), q_target=Sum([[0, 0, 5.0, 9.0], [0, 0, 4.0, 8.0]]))


def batch(*next_action: float) -> Transitions:
    """Actions 0.2 and −0.1; neither ends."""
    made = table_transitions([1.0, 2.0], [False, False])
    told = torch.tensor(next_action, dtype=torch.float64)[:, None]
    return made.replace(action=torch.tensor([[0.2], [-0.1]], dtype=torch.float64)).with_extra(next_action=told)


def losses(method: TD3, given: Transitions) -> dict[str, float]:
    networks = models()
    with torch.no_grad():
        prepared = method.prepare(networks, given)
    return {name: float(t.value.detach()) for name, t in method.loss(networks, prepared.counted()).terms.items()}


def test_losses_by_hand() -> None:
    # Noise is 0, so ã = 0.5 and 0.25.  Q̄ = min(5.5, 4.5) = 4.5 and 8.25; what was done next was 0.1 and is not known:
    # y_0 = 1 + 0.5 (4.5 − 2 · 0.4²) = 3.09;  y_1 = 2 + 0.5 · 8.25 = 6.125.
    # Q(s, a) = 1.2, 2.2 and 2.9, 0.9:
    # L_Q = ½ [ 1.89² + 0.89² + 3.225² + 5.225² ] = ½ [ 3.5721 + 0.7921 + 10.400625 + 27.300625 ] = 42.06545 / 2
    # min_k Q(s, π) = 1.5 and 0.5, so λ = 1.  L_π = ½ [ 3 · 0.09 − 1.5 + 3 · 0.16 − 0.5 ] = ½ [ 0.75 − 2 ] = −0.625
    found = losses(ReBRAC(pull_policy=3.0, pull_target=2.0, discount=0.5), batch(0.1, math.nan))
    assert found["q"] == pytest.approx(21.032725, abs=1e-10)
    assert found["policy"] == pytest.approx(-0.625, abs=1e-10)


def test_without_both_pulls_q_learns_as_in_td3() -> None:
    given = batch(0.1, -0.3)
    assert losses(ReBRAC(pull_target=0.0), given)["q"] == losses(TD3(), given)["q"]


def test_from_a_replay_there_is_no_second_pull() -> None:
    """Its rows do not say what was done next."""
    given = batch(0.1, -0.3)
    assert losses(ReBRAC(pull_target=5.0), given.replace(extra={}))["q"] == losses(TD3(), given)["q"]
