"""A model of stretches: what it takes and gives, its noise levels, and a fit to steps that are known."""

from __future__ import annotations

import torch
from worked import close, f64

from posttrain.data.dataset import Dataset
from posttrain.data.steps import Spaces
from posttrain.policies.stretches import StretchModel, noise_levels
from posttrain.train.stretches import fit, starts

SPACES = Spaces(1, 1, False)


def dataset(episodes: int = 40, length: int = 6) -> Dataset:
    """s' = s + a / 2, r = s, from s ~ N(0, 1), a = ± ½; an episode terminates with its last step."""
    generator = torch.Generator().manual_seed(0)
    action = torch.randint(2, (episodes, length), generator=generator) - 0.5
    seen = torch.cat([torch.randn(episodes, 1, generator=generator), action / 2], 1).cumsum(1)
    ended = torch.zeros(episodes, length, dtype=torch.bool)
    ended[:, -1] = True
    return Dataset(SPACES, obs=seen[:, :-1].reshape(-1, 1), action=action.reshape(-1, 1), reward=seen[:, :-1].flatten(),
                   next_obs=seen[:, 1:].reshape(-1, 1), terminated=ended.flatten(),
                   episode=torch.arange(episodes).repeat_interleave(length))


def test_stretches_stay_within_an_episode() -> None:
    # Episodes of 6 steps: stretches of 4 begin at the first three of each.
    assert starts(dataset(2), 4).tolist() == [0, 1, 2, 6, 7, 8]
    assert len(starts(dataset(2), 7)) == 0


def test_what_is_taken_is_given_back() -> None:
    data, model = dataset(), StretchModel(SPACES, 4, 8, torch.Generator().manual_seed(0))
    model.observe(data)
    first = torch.tensor([2, 7])
    made, at = model.read(model.rows(data, first)), first[:, None] + torch.arange(4)
    torch.testing.assert_close(made.obs, data.obs[at])
    torch.testing.assert_close(made.action, data.action[at])
    torch.testing.assert_close(made.reward, data.reward[at])
    torch.testing.assert_close(made.next_obs, data.next_obs[at])
    assert torch.equal(made.terminated, data.terminated[at]) and made.terminated.any()
    whole = model.rows(data, starts(data, 4))
    assert float(whole[:, 1::4][:, :4].std()) < 1.1  # in units of the data


def test_noise_levels() -> None:
    # Of three: 80, then ((80^(1/7) + 0.002^(1/7)) / 2)^7, then 0.002, and none.
    between = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    close(noise_levels(3, torch.float64), f64([80, between, 0.002, 0]))


def test_a_fit_makes_up_steps_that_follow_from_each_other() -> None:
    data, model = dataset(), StretchModel(SPACES, 3, 32, torch.Generator().manual_seed(5)).requires_grad_(False)
    fit(model, data, updates=1, seed=0)
    before, poor = float(model.held_out), misses(model)
    fit(model, data, updates=400, seed=0)
    assert float(model.held_out) < before and misses(model) < 0.3 * poor  # 0.3 of 1.3, and 0.04 after 3000 updates
    again = StretchModel(SPACES, 3, 32, torch.Generator().manual_seed(6)).requires_grad_(False)
    fit(again, data, updates=1, seed=0)
    fit(model, data, updates=1, seed=0)
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in model.state_dict().items())


def misses(model: StretchModel) -> float:
    """How far s' is from s + a / 2, on average."""
    made = model.read(model.sample(200, 12, torch.Generator().manual_seed(0)))
    return float((made.next_obs - made.obs - made.action / 2).abs().mean())
