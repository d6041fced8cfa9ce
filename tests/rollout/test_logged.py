"""Draws from a dataset, alone and beside a replay."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from posttrain.core import Groups
from posttrain.data.dataset import Dataset
from posttrain.data.replay.uniform import Replay
from posttrain.data.steps import Spaces, Steps, Stretches
from posttrain.policies.control import Gaussian
from posttrain.rollout.logged import BesideSource, DatasetSource, StretchSource, joined

SPACES = Spaces(1, 1, False)


def dataset() -> Dataset:
    """Two episodes, of three and two steps; row i is at i, did i / 10 and earned i."""
    i = torch.arange(5.0)
    return Dataset(SPACES, obs=i[:, None], action=i[:, None] / 10, reward=i, next_obs=i[:, None] + 100,
                   terminated=torch.tensor([False, False, True, False, False]), episode=torch.tensor([0, 0, 0, 1, 1]))


def test_rows_keep_together() -> None:
    batch = DatasetSource(dataset(), 200, 3, 0.5, 1, 0).next(4)
    i = batch.reward
    assert set(i.tolist()) == {0, 1, 2, 3, 4}
    assert torch.equal(batch.obs[:, 0], i)
    assert torch.equal(batch.next_obs[:, 0], i + 100)
    assert torch.equal(batch.terminated, i == 2)
    to_go = torch.tensor([0 + 0.5 * (1 + 0.5 * 2), 1 + 0.5 * 2, 2, 3 + 0.5 * 4, 4])
    assert torch.equal(batch.extra["to_go"], to_go[i.long()])
    torch.testing.assert_close(batch.extra["next_action"][:, 0],
                               torch.tensor([0.1, 0.2, torch.nan, 0.4, torch.nan])[i.long()], equal_nan=True)
    assert batch.noise.shape == (200, 3, 1)
    assert isinstance(batch.payload, Steps) and torch.equal(batch.payload.action[:, 0], batch.action)


def test_a_round_is_drawn_the_same_again() -> None:
    one, other = (DatasetSource(dataset(), 8, 1, 0.5, 1, 3).next(2) for _ in range(2))
    assert torch.equal(one.reward, other.reward) and torch.equal(one.noise, other.noise)
    assert not torch.equal(one.reward, DatasetSource(dataset(), 8, 1, 0.5, 1, 3).next(3).reward)


def test_spans_stop_where_episodes_do() -> None:
    # Two actions, γ = ½: 0 + ½ · 1; 1 + ½ · 2; 2, which terminated; 3 + ½ · 4; 4, after which nothing was logged.
    batch = DatasetSource(dataset(), 200, 0, 0.5, 2, 0).next(0)
    i = batch.obs[:, 0].long()
    assert batch.span is not None
    assert torch.equal(batch.reward, torch.tensor([0.5, 2.0, 2.0, 5.0, 4.0])[i])
    assert torch.equal(batch.span, torch.tensor([2, 2, 1, 2, 1])[i])
    assert torch.equal(batch.terminated, torch.tensor([False, True, True, False, False])[i])


@pytest.mark.parametrize("span", [1, 2])
def test_what_a_replay_does_not_know_is_said_to_be_unknown(span: int) -> None:
    fresh = Replay(SPACES, 10, span=span)
    fresh.add(obs=torch.full((2, 1), 50.0), action=torch.zeros(2, 1), reward=torch.tensor([7.0, 8.0]),
              next_obs=torch.full((2, 1), 51.0), terminated=torch.tensor([False, True]))
    generator = torch.Generator().manual_seed(0)

    class Acting:
        def next(self, step: int) -> Any:
            return fresh.draw(3, 1, generator)

    batch = DatasetSource(dataset(), 4, 1, 0.5, span, 0, Acting()).next(0)  # type: ignore[arg-type]
    assert len(batch) == 7 and batch.unit.tolist() == list(range(7))
    assert (batch.obs[:4, 0] < 10).all() and (batch.obs[4:, 0] == 50).all()
    assert batch.extra["to_go"][:4].isfinite().all() and (batch.extra["to_go"][4:] == -torch.inf).all()
    assert batch.extra["next_action"][4:].isnan().all()
    assert (batch.span is None) == (span == 1)
    back = batch.take(torch.tensor([5]))
    assert isinstance(back.payload, Steps) and back.payload.obs.item() == 50


def test_logged_actions_beside_a_segment() -> None:
    """Two environments of 6 steps, whose first row is cut at the 4th; 8 logged actions take two rows of 6."""
    policy = Gaussian(SPACES, 4, 1, "tanh", None, torch.Generator().manual_seed(0))

    class Acting:
        def __init__(self) -> None:
            self.policy = policy

        def next(self, step: int) -> Groups:
            mask = torch.arange(6) < torch.tensor([[4], [6]])
            obs = torch.arange(12.0).view(2, 6, 1)
            return Groups(payload=Steps(obs, obs / 10, torch.tensor([[90.0], [91.0]])), mask=mask,
                          unit=torch.arange(2), version=torch.zeros(2, 6, dtype=torch.long),
                          logp_behaviour=torch.zeros(2, 6), reward=torch.zeros(2), rewards=torch.zeros(2, 6),
                          finished=torch.tensor([True, False]), limit=6, extra={"environment": torch.arange(2)})

    source = BesideSource(Acting(), dataset(), 8, 3, 5)  # type: ignore[arg-type]
    batch, x = source.next(2), source.next(2).extra
    assert torch.equal(batch.mask.sum(1), torch.tensor([4, 6, 6, 2])) and batch.unit.tolist() == [0, 1, 2, 3]
    assert x["given"].tolist() == [False, False, True, True]
    assert x["next_obs"][0, :4, 0].tolist() == [1, 2, 3, 90]
    assert x["next_obs"][1, :, 0].tolist() == [7, 8, 9, 10, 11, 91]
    assert x["terminated"][:2].nonzero().tolist() == [[0, 3]]  # the other row was cut off
    own = batch.mask & x["given"][:, None]
    assert isinstance(batch, Groups) and isinstance(batch.payload, Steps) and batch.rewards is not None
    i = x["obs"][own][:, 0]
    assert torch.equal(batch.payload.obs[own][:, 0], i) and torch.equal(batch.payload.action[own][:, 0], i / 10)
    assert torch.equal(batch.rewards[own], i) and torch.equal(x["next_obs"][own][:, 0], i + 100)
    assert torch.equal(x["terminated"][own], i == 2)
    assert batch.logp_behaviour[own].isnan().all() and (batch.version[own] == -1).all()
    assert x["noise"].shape == (4, 6, 3, 1) and torch.equal(x["noise"], batch.extra["noise"])
    assert not torch.equal(x["noise"], source.next(3).extra["noise"])


def test_stretches_end_where_episodes_do() -> None:
    batch = StretchSource(dataset(), 200, 3, 0).next(4)
    steps = batch.payload
    assert isinstance(steps, Stretches)
    first = steps.obs[:, 0, 0].long()
    assert set(first.tolist()) == {0, 1, 2, 3, 4}
    lengths = torch.tensor([3, 2, 1, 2, 1])[first]  # of episodes 0 1 2 and 3 4
    assert torch.equal(batch.mask, torch.arange(3) < lengths[:, None])
    i = torch.where(batch.mask, first[:, None] + torch.arange(3), 0)
    to_go = torch.tensor([3.0, 3.0, 2.0, 7.0, 4.0])  # 0 + 1 + 2, 1 + 2, 2; 3 + 4, 4
    for found, expected in ((steps.obs[..., 0], i.float()), (steps.action[..., 0], i / 10), (steps.to_go, to_go[i]),
                            (steps.time, torch.tensor([0, 1, 2, 0, 1])[i])):
        torch.testing.assert_close(found[batch.mask], expected[batch.mask])
    assert torch.equal(batch.reward, torch.tensor([3.0, 3.0, 2.0, 7.0, 4.0])[first])
    assert torch.equal(batch.finished, first < 3)  # the second episode was cut off
    assert batch.limit == 3 and batch.unit.tolist() == list(range(200))
    some = batch.take(torch.tensor([7, 3]))
    assert isinstance(some.payload, Stretches) and torch.equal(some.payload.time, steps.time[[7, 3]])


def test_joining_keeps_every_column() -> None:
    rows = DatasetSource(dataset(), 3, 1, 0.5, 1, 0)
    one, other = rows.next(0), rows.next(1).replace(extra={})
    both = joined(one, other)
    for name in ("obs", "action", "reward", "next_obs", "terminated", "noise", "mask", "version"):
        assert torch.equal(getattr(both, name), torch.cat([getattr(one, name), getattr(other, name)])), name
