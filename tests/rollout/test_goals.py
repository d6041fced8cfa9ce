"""Environments with goals: what they show, what other goals would have paid, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bit_flipping  # registers its environments
import gymnasium as gym
import numpy as np
import pytest
import torch

import posttrain
from posttrain.core.errors import UserError
from posttrain.rollout.environments import Environments, make, play, spaces_of
from posttrain.rollout.goals import Judge, flat, has_goals
from posttrain.train.config import ControlConfig
from posttrain.train.control import ControlSetting
from posttrain.train.kinds import kind_of

TASK = "BitFlipping6-v0"


class Unpaid(bit_flipping.BitFlipping):
    """Shows goals, but cannot say what another one would have paid."""

    compute_reward = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        if name == "compute_reward":
            raise AttributeError(name)
        return super().__getattribute__(name)


gym.register("Unpaid-v0", Unpaid)


def test_the_goal_ends_the_observation() -> None:
    envs = Environments(TASK, 2, 0)
    assert envs.spaces == (12, 6, True)
    before = envs.obs.clone()
    found = envs.step(torch.tensor([0, 5]))
    changed = before.clone()
    changed[0, 0], changed[1, 5] = 1 - changed[0, 0], 1 - changed[1, 5]
    assert torch.equal(found.next_obs, changed)
    assert torch.equal(found.achieved, changed[:, :6])
    assert Environments("CartPole-v1", 2, 0).step(torch.tensor([0, 1])).achieved.shape == (2, 0)


def test_what_other_goals_would_have_paid() -> None:
    judge = Judge(make(TASK))
    reached = torch.tensor([[0.0, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1]])
    goal = torch.tensor([[0.0, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 0]])
    reward, ended = judge(reached, goal, torch.tensor([False, True]))
    assert reward.tolist() == [0.0, -1.0]
    assert ended.tolist() == [True, False]


def test_where_an_end_is_not_explained_it_stays() -> None:
    env = make(TASK)
    judge = Judge(env)
    judge.ended = None
    assert judge(torch.ones(1, 6), torch.zeros(1, 6), torch.tensor([True]))[1].tolist() == [True]


def test_flat_puts_the_goal_last() -> None:
    seen = {"observation": np.array([[1, 2], [3, 4]]), "desired_goal": np.array([7]), "achieved_goal": np.array([9])}
    assert flat(seen).tolist() == [1, 2, 3, 4, 7]
    assert flat(np.float64(2.5)).tolist() == [2.5]


def test_an_episode_is_played_from_its_start() -> None:
    def flip_what_differs(obs: torch.Tensor) -> torch.Tensor:
        return (obs[:, :6] != obs[:, 6:]).float().argmax(1)

    starts = [make(TASK).reset(seed=seed)[0] for seed in range(5)]
    apart = [int((s["observation"] != s["desired_goal"]).sum()) for s in starts]
    assert [played.length for played in play(TASK, flip_what_differs, range(5))] == [max(n, 1) for n in apart]


def test_a_module_registers_its_environments() -> None:
    assert spaces_of(make(f"bit_flipping:{TASK}")) == (12, 6, True)
    assert kind_of("", f"bit_flipping:{TASK}") == "control"
    with pytest.raises(UserError, match="no_such_module:Env-v0': importing it failed: Mod"):
        make("no_such_module:Env-v0")


@pytest.mark.parametrize(("name", "given", "message"), [
    ("dqn", {"task": "CartPole-v1", "replay": "hindsight"}, "replay = 'hindsight': CartPole-v1 has no goals"),
    ("ppo", {"task": TASK, "replay": "hindsight"}, "replay = 'hindsight': ppo learns from its own acting alone"),
    ("dqn", {"task": TASK, "replay": "hindsight", "span": 3}, "span = 3: with replay = 'hindsight' it must be 1"),
    ("dqn", {"task": "Unpaid-v0"}, "its observations are Dict, not Box"),
])
def test_what_cannot_be_is_one_line(name: str, given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        posttrain.train(name, **given, out=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_hindsight_shows_success_where_acting_had_none() -> None:
    """200 random steps over 6 bits reach few of their goals; with k = 4 most episodes' last steps reach one."""
    setting = ControlSetting(posttrain.method("dqn"), ControlConfig(
        task=TASK, policy="greedy", replay="hindsight", random_steps=200, batch_size=500, width=8, envs=2), None)
    batch = setting.source.next(0)
    replay = setting.replay
    paid = float((replay.columns["reward"][:replay.count] == 0).double().mean())
    assert float((batch.reward == 0).double().mean()) > paid + 0.1
    there = (batch.next_obs[:, :6] == batch.next_obs[:, 6:]).all(1)
    assert torch.equal(batch.reward == 0, there)
    assert torch.equal(batch.terminated, there)
    assert has_goals(make(TASK))
