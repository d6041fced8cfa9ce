"""A Gaussian whose mean stays within the actions' range and whose σ stays within bounds."""

from __future__ import annotations

import math

import pytest
import torch
from control_toy import setting
from torch.distributions import Normal
from worked import close, f64

from posttrain.core import catalog
from posttrain.data.steps import Spaces
from posttrain.policies.control import BoundedGaussian

OBS = f64([[1, 2, 0], [0, -3, 5]])


def policy(*log_std: float) -> BoundedGaussian:
    """μ = (½ ln 3, 0) in every state, so that tanh μ = (½, 0): tanh ½ ln 3 = (3 − 1) / (3 + 1)."""
    made = BoundedGaussian(Spaces(3, 2, False), 4, 0, "tanh", None, torch.Generator()).double()
    with torch.no_grad():
        made.body.weights[0].zero_()
        made.body.biases[0].copy_(f64([0.5 * math.log(3), 0]))
        made.log_std.copy_(f64(log_std))
    return made


def test_the_density_by_hand() -> None:
    # σ = ½ and, of −9, e^−5.  At (1, 0) z = (1, 0): log π = −½ + ln 2 + 5 − ln 2π.  The entropy is ln 2πe − ln 2 − 5.
    made = policy(math.log(0.5), -9)
    expected = -0.5 + math.log(2) + 5 - math.log(2 * math.pi)
    close(made.log_density(OBS, f64([[1, 0], [1, 0]])).detach(), [expected] * 2)
    close(made.entropy(OBS).detach(), [math.log(2 * math.pi * math.e) - math.log(2) - 5] * 2)


def test_what_is_drawn_may_leave_the_range_and_the_mean_may_not() -> None:
    # From noise (2, −1): (½ + ½ · 2, 0 − e² · 1), as 4 is cut to 2.
    made = policy(math.log(0.5), 4)
    drawn = made.sample(OBS[:1], f64([[2, -1]]))
    close(drawn.action.detach(), [[1.5, -math.exp(2)]])
    close(drawn.log_prob.detach(), made.log_density(OBS[:1], drawn.action).detach())
    normal = Normal(f64([0.5, 0]), f64([0.5, math.exp(2)]))
    close(drawn.log_prob.detach(), normal.log_prob(drawn.action.detach()).sum(-1))
    with torch.no_grad():
        made.body.biases[0].fill_(-300)
    close(made.mode(OBS).detach(), [[-1, -1], [-1, -1]])


def test_the_divergence_is_a_gaussian_s() -> None:
    """KL(N(μ, σ² / 4) ‖ N(μ, σ²)) = ½ (¼ − 1 − ln ¼), and none where both are cut to the same σ."""
    ppo = setting(catalog.make("ppo"), policy="bounded-gaussian", segment=16)
    wide = ppo.policy.float()
    assert isinstance(wide, BoundedGaussian)
    batch, narrow = ppo.source.next(0), wide.initial()
    with torch.no_grad():
        narrow.log_std.fill_(-math.log(2))
    torch.testing.assert_close(wide.kl_from(batch, narrow), torch.full((1, 16), 0.5 * (0.25 - 1 - math.log(0.25))))
    with torch.no_grad():
        narrow.log_std.fill_(7)
        wide.log_std.fill_(8)
    assert not wide.kl_from(batch, narrow).any()


@pytest.mark.parametrize(("task", "kind"), [("Pendulum-v1", "bounded-gaussian"), ("CartPole-v1", "categorical")])
def test_iql_acts_by_it_where_actions_have_a_range(task: str, kind: str) -> None:
    assert setting(catalog.make("iql"), task=task).policy.kind == kind
