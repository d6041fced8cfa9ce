"""What a greedy policy does, and Q networks with atoms, duelling and members."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from posttrain.core.errors import UserError
from posttrain.data.steps import Spaces
from posttrain.policies import control
from posttrain.policies.control import ActionValue, Greedy

SPACES = Spaces(3, 4, True)
OBS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def q(**options: object) -> ActionValue:
    given = {"members": 2, "width": 6, "layers": 1, "activation": "relu",
             "generator": torch.Generator().manual_seed(1), **options}
    return ActionValue(SPACES, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"atoms": 3}, {"atoms": 3, "dueling": True, "layer_norm": True},
                                     {"atoms": 3, "support": torch.tensor([-1.0, 0.0, 5.0])}])
def test_saved_and_loaded_it_acts_alike(options: dict[str, object], tmp_path: Path) -> None:
    policy = Greedy(q(**options))
    found = control.load(policy.save(tmp_path / "final"))
    with torch.no_grad():
        assert torch.equal(found(OBS), policy(OBS))
        assert torch.equal(found.mode(OBS), policy(OBS).argmax(-1))


def test_worth_is_the_mean_of_members_and_atoms() -> None:
    plain, supported = q(atoms=3), q(atoms=3, support=torch.tensor([-1.0, 0.0, 5.0]))
    every = plain.every(OBS)
    assert every.shape == (2, 5, 4, 3)
    assert torch.allclose(plain.worth(OBS), every.mean((0, 3)))
    p = every.softmax(-1)  # the same weights
    assert torch.allclose(supported.worth(OBS), (5 * p[..., 2] - p[..., 0]).mean(0), atol=1e-6)


def test_taken_actions_are_picked_from_all() -> None:
    action = torch.tensor([3, 0, 1, 2, 0])
    for network in (q(), q(atoms=3)):
        every = network.every(OBS)
        assert torch.equal(network(OBS, action), torch.stack([every[:, i, a] for i, a in enumerate(action)], 1))


def test_duelling_parts_a_states_value_from_its_actions_advantages() -> None:
    # V of the first column; advantages less their mean, so that Q's mean over actions is V.
    network = q(dueling=True)
    out = network.body(OBS)
    assert out.shape == (2, 5, 5)
    assert torch.allclose(network.every(OBS).mean(2), out[:, :, 0], atol=1e-6)
    assert torch.allclose(network.every(OBS).diff(dim=2), out[:, :, 1:].diff(dim=2), atol=1e-6)


def test_it_has_no_likelihood() -> None:
    with pytest.raises(UserError, match="policy = 'greedy': has no log-probability"):
        Greedy(q()).log_density(OBS, torch.zeros(5, dtype=torch.long))


def test_the_first_member_alone_is_what_it_is_beside_the_others() -> None:
    generator = torch.Generator().manual_seed(2)
    critic = ActionValue(Spaces(3, 4, False), 3, 6, 2, "relu", generator)
    action = torch.randn(5, 4, generator=generator).requires_grad_()
    alone, beside = critic.first(OBS, action), critic.fixed(OBS, action)
    assert alone.shape == (5,)
    assert torch.equal(alone, beside[0])
    (slope,), (wanted,) = (torch.autograd.grad(x.sum(), action) for x in (alone, beside[0]))
    assert torch.allclose(slope, wanted, rtol=1e-6, atol=0)
    assert slope.abs().min() > 0
    critic.first(OBS, action).sum().backward()
    assert all(w.grad is None for w in critic.parameters())
