"""A Gaussian squashed by tanh: what it says of what it draws, and of what it is given."""

from __future__ import annotations

import math

import torch
from torch.distributions import Normal
from worked import close, f64

from posttrain.data.steps import Spaces
from posttrain.policies.control import SquashedGaussian


def policy() -> SquashedGaussian:
    """μ = ½ ln 3 in every state, so that tanh μ = ½; log σ = −5 + 7 / 2 (tanh 0 + 1) = −1.5."""
    made = SquashedGaussian(Spaces(3, 1, False), 4, 0, "tanh", None, torch.Generator()).double()
    with torch.no_grad():
        made.body.weights[0].zero_()
        made.body.biases[0].copy_(f64([0.5 * math.log(3), 0]))
    return made


def test_the_density_by_hand() -> None:
    # ε = 0: log N = 1.5 − ½ ln 2π and a = ½, so that log π = log N − ln(1 − ¼); with ε = 2, log N is ε² / 2 = 2 less
    made, obs = policy(), torch.zeros(2, 3, dtype=torch.float64)
    action, logp = made.sample(obs, f64([[0], [2]]))
    top, a = 1.5 - 0.5 * math.log(2 * math.pi), math.tanh(0.5 * math.log(3) + 2 * math.exp(-1.5))
    close(action.detach(), [[0.5], [a]])
    close(logp.detach(), [top - math.log(0.75), top - 2 - math.log(1 - a**2)])
    close(made.log_density(obs, action).detach(), logp.detach().tolist())


def test_the_gradient_of_what_was_drawn_is_that_through_the_draw() -> None:
    made, obs, noise = policy(), torch.zeros(4, 3, dtype=torch.float64), f64([[0], [2], [-1], [0.3]])
    bias = made.body.biases[0]
    mean, std = bias[:1], (-5 + 3.5 * (torch.tanh(bias[1:]) + 1)).exp()
    u = mean + std * noise
    wanted = Normal(mean, std).log_prob(u) - torch.log(1 - torch.tanh(u) ** 2)
    found = torch.autograd.grad(made.sample(obs, noise).log_prob.sum(), bias)[0]
    close(found, torch.autograd.grad(wanted.sum(), bias)[0].tolist())
