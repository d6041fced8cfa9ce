"""EDAC: the likeness of slopes by hand; without it, SAC over many members."""

from __future__ import annotations

import math

import pytest
import torch
from control_toy import ControlLearner, toy_transitions
from table_control import table_transitions
from torch import Tensor, nn

from posttrain.core import Models
from posttrain.methods.off_policy.sac import SAC
from posttrain.methods.offline.edac import EDAC


class Linear(nn.Module):
    """Q_k(s, a) = w_k · a, for actions of two numbers."""

    def __init__(self, weights: list[list[float]]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float64))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return torch.einsum("kba,ka->kb", action, self.weights)


def likeness(*degrees: float, length: float = 1.0) -> tuple[Tensor, Linear]:
    q = Linear([[length * math.cos(math.radians(d)), length * math.sin(math.radians(d))] for d in degrees])
    batch = table_transitions([0.0], [False])
    batch = batch.replace(action=torch.zeros(1, 2, dtype=torch.float64))
    found = EDAC(members=len(degrees)).likeness(Models(policy=None, q=q), batch)
    return found, q


@pytest.mark.parametrize(("degrees", "expected"), [
    # Σ over k ≠ l of cos of the angle between them, over K − 1.
    ((0.0, 0.0), 2.0),  # two pairs of 1, over 1
    ((0.0, 90.0), 0.0),
    ((0.0, 60.0), 1.0),  # two pairs of ½
    ((0.0, 120.0, 240.0), -1.5),  # six pairs of −½, over 2: as far apart as three can be
])
def test_likeness_by_hand(degrees: tuple[float, ...], expected: float) -> None:
    assert likeness(*degrees)[0].tolist() == pytest.approx([expected], abs=1e-9)
    assert likeness(*degrees, length=7.0)[0].tolist() == pytest.approx([expected], abs=1e-9)  # of directions alone


def test_its_gradient_turns_slopes_apart() -> None:
    # Two unit slopes at 0° and θ: likeness 2 cos θ, so d/dθ = −2 sin θ = −2 at 90°, along the second slope's (−1, 0).
    found, q = likeness(0.0, 90.0)
    found.sum().backward()
    assert q.weights.grad is not None
    assert q.weights.grad[1].tolist() == pytest.approx([2.0, 0.0], abs=1e-8)


def test_without_diversity_it_is_sac_of_as_many_members() -> None:
    def gradients(method: SAC) -> dict[str, Tensor]:
        learner = ControlLearner(method, layers=2)
        learner.update(toy_transitions(learner.setting.spaces, noises=2))
        return {name: learner.gradient(name) for name in learner.optimizers}

    ours, theirs = gradients(EDAC(diversity=0.0, members=4)), gradients(SAC(members=4))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
