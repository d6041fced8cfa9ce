"""Draws of what a model made up: when it is made anew, who is asked, and the same again after a kill."""

from __future__ import annotations

import torch
from torch import Tensor

from posttrain.data.dataset import Dataset
from posttrain.data.steps import Spaces
from posttrain.policies.stretches import StretchModel
from posttrain.rollout.synthetic import SyntheticSource

SPACES = Spaces(2, 1, False)


def source(asked: list[int]) -> SyntheticSource:
    """5 stretches of 3 steps, anew every 4 draws of 7."""
    model = StretchModel(SPACES, 3, 4, torch.Generator().manual_seed(0)).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    model.observe(Dataset(SPACES, obs=torch.randn(20, 2, generator=generator), terminated=torch.arange(20) % 7 == 0,
                          action=torch.rand(20, 1, generator=generator), reward=torch.randn(20, generator=generator),
                          next_obs=torch.zeros(20, 2), episode=torch.zeros(20, dtype=torch.long)))

    def guide(obs: Tensor, action: Tensor, taken: int) -> Tensor:
        assert obs.shape == (5, 3, 2) and action.shape == (5, 3, 1)
        asked.append(taken)
        return torch.zeros_like(action)

    return SyntheticSource(model, 7, 2, 5, 4, 3, seed=0, guide=guide)


def test_stretches_are_made_anew_and_only_then_is_anybody_asked() -> None:
    asked: list[int] = []
    made, held = source(asked), []
    for step in range(6):
        batch = made.next(step)
        assert batch.noise.shape == (7, 2, 1) and (batch.action.abs() <= 1).all()
        held.append(made.replay.columns["obs"].clone())
        assert all((x == held[-1]).all(1).any() for x in batch.obs)
    assert all(torch.equal(x, held[0]) for x in held[:4]) and torch.equal(held[4], held[5])
    assert not torch.isin(held[0], held[4]).any()  # all of it
    assert asked == [0, 1, 2]  # before each pass of the second making


def test_goes_on_alike_after_a_kill() -> None:
    whole, rest = source([]), source([])
    for step in range(3):
        whole.next(step)
    rest.load(whole.tensors())
    for step in range(3, 6):
        one, other = whole.next(step), rest.next(step)
        assert torch.equal(one.obs, other.obs) and torch.equal(one.noise, other.noise)
