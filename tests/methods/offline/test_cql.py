"""CQL's gap against the integral that it estimates, its losses by hand, and SAC as its limit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from table_control import Table, TableActor, table_transitions
from torch import Tensor

from posttrain.core import Models, Transitions
from posttrain.methods.offline.cql import CQL, DRAWS
from posttrain.policies.control import Temperature


class Even(TableActor):
    """Samples the same actions as the even draws do, and knows their density, ½."""

    def sample(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        action = torch.erf(noise / math.sqrt(2))
        return action, torch.full((len(obs),), -math.log(2), dtype=torch.float64)


class Slope(Table):
    """Q_k(s, b) = number of the state + 2 b."""

    def forward(self, obs: Tensor, action: Tensor | None = None) -> Tensor:
        assert action is not None
        return super().forward(obs) + 2 * action[:, 0]

    def fixed(self, obs: Tensor, action: Tensor) -> Tensor:
        return self(obs, action).detach()


def models() -> Models:
    temperature = Temperature().double()
    return Models(policy=Even([0.0, 0, 0, 0]), temperature=temperature, q=Slope([[1.0, -2.0, 0, 0]]),
                  q_target=Slope([[0, 0, 5.0, 9.0]]))


def batch(seed: int = 0) -> Transitions:
    made = table_transitions([1.0, 2.0], [False, True], noises=CQL.noises)
    generator = torch.Generator().manual_seed(seed)
    return made.replace(noise=torch.randn(made.noise.shape, generator=generator, dtype=torch.float64))


def test_the_soft_maximum_estimates_the_integral() -> None:
    # log ∫_{−1}^{1} exp(c + 2 b) db = c + log sinh 2.  The mean of exp over 400 batches of 30 draws is near to it.
    found = torch.stack([CQL().soft_maximum(models(), batch(seed)).exp() for seed in range(400)]).mean(0).log()
    assert found.shape == (1, 2)
    assert found[0].tolist() == pytest.approx([1 + math.log(math.sinh(2)), -2 + math.log(math.sinh(2))], abs=0.03)


def test_losses_by_hand() -> None:
    # With all noise 0 every drawn action is 0: G = Q(s, 0) + log 2 − Q(s, a) = log 2 + 0 − 2 a.
    # Actions 0.5 and 0: gaps log 2 − 1 and log 2, so α · their mean = 3 (log 2 − 0.5).
    # y_0 = 1 + 0.5 · 5 = 3.5 and y_1 = 2;  Q = 2 and −2: L_Q = ½ [ 1.5² + 4² ] = 9.125
    given = batch()
    given = given.replace(noise=0 * given.noise, action=torch.tensor([[0.5], [0.0]], dtype=torch.float64))
    loss = CQL(discount=0.5, conservatism=3.0, members=1).loss(models(), given.counted())
    found = {name: float(term.value.detach()) for name, term in loss.terms.items()}
    assert found["q"] == pytest.approx(9.125, abs=1e-12)
    assert found["conservatism"] == pytest.approx(3 * (math.log(2) - 0.5), abs=1e-12)
    # L_π = ½ Σ [ 1 · log ½ − Q(s, 0) ] = −log 2 − ½ (1 − 2)
    assert found["policy"] == pytest.approx(0.5 - math.log(2), abs=1e-12)


def test_what_is_pushed_down_is_pushed_up_at_the_data() -> None:
    """The gap's gradient over all values of a state sums to 0: softmax weights, less 1 at the action of the data."""
    networks: Any = models()
    CQL(conservatism=3.0).loss(networks, batch().counted()).terms["conservatism"].value.backward()
    assert networks.q.values_.grad.abs().max() < 1e-12


def test_draws_are_as_many_as_there_is_noise_for() -> None:
    assert CQL.noises == 2 + 3 * DRAWS
