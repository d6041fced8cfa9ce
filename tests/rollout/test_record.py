"""Records of acting and of replays say what the environment did."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from posttrain.data.replay.uniform import COLUMNS, Replay
from posttrain.policies.control import KINDS
from posttrain.rollout.environments import Environments, flat, make, spaces_of
from posttrain.rollout.record import at_random, by_policy, by_script, from_replay, record
from posttrain.rollout.replayed import Exploration, ReplaySource


def test_an_episode_plays_again_from_its_seed() -> None:
    first, second = record("CartPole-v1", at_random, 3, episodes=2)
    assert first.terminations[-1] and not first.truncations.any()  # a random policy lets the pole fall
    assert first.seed != second.seed
    env = make("CartPole-v1")
    seen = env.reset(seed=first.seed)[0]
    for t, action in enumerate(first.actions):
        np.testing.assert_array_equal(seen, first.observations[t])
        seen, reward, terminated, truncated, _ = env.step(int(action))
        assert (reward, terminated, truncated) == (first.rewards[t], first.terminations[t], first.truncations[t])
    np.testing.assert_array_equal(seen, first.observations[-1])


def test_a_time_limit_truncates() -> None:
    (episode,) = record("Pendulum-v1", by_script(lambda obs: [-obs[2]]), 0, episodes=1)
    assert len(episode.rewards) == 200
    assert episode.truncations.nonzero()[0].tolist() == [199]
    assert not episode.terminations.any()
    np.testing.assert_allclose(episode.actions[:, 0], (-episode.observations[:-1, 2]).clip(-2, 2))


class Hidden(gym.Env[Any, Any]):
    """Go to a place that only `info` tells, and that NumPy's own generator draws, as in some packages."""

    observation_space = gym.spaces.Box(-9, 9, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.goal = np.zeros(1, np.float32), np.random.uniform(2.1, 2.9)
        return self.at, {"away": self.goal}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at = self.at + action
        away = self.goal - float(self.at[0])
        return self.at, -abs(away), abs(away) < 1e-5, False, {"away": away}


gym.register("Hidden-v0", Hidden)


class Towards:
    """Its `count` begins anew in each episode."""

    def __init__(self, env: Any, obs: Any, info: dict[str, Any]) -> None:
        assert info["away"] == env.unwrapped.goal and not obs.any()
        self.count = 0

    def __call__(self, obs: Any, info: dict[str, Any]) -> list[float]:
        self.count += 1
        assert self.count <= 3
        return [info["away"]]


def test_a_class_of_controllers_sees_the_environment_and_what_it_says_besides() -> None:
    before = np.random.get_state()[1].copy()
    first, second = record("Hidden-v0", by_script(Towards), 0, episodes=2)
    goals = [float(e.actions.sum()) for e in (first, second)]
    for episode, goal in zip((first, second), goals, strict=True):
        np.testing.assert_allclose(episode.actions[:, 0], [1, 1, goal - 2], rtol=1e-6)  # cut off at the bound
        assert episode.terminations.tolist() == [False, False, True]
    assert goals[0] != goals[1]
    again, _ = record("Hidden-v0", by_script(Towards), 0, episodes=2)
    np.testing.assert_array_equal(again.actions, first.actions)  # the seed decides what NumPy's own generator draws
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_an_environment_that_draws_without_its_seed_is_restored() -> None:
    envs, other = (Environments("Hidden-v0", 2, 7) for _ in range(2))
    envs.step(torch.ones(2, 1))
    other.restore(envs.state())
    assert [e.unwrapped.goal for e in other.envs] == [e.unwrapped.goal for e in envs.envs]


def test_steps_are_whole_episodes() -> None:
    found = record("Pendulum-v1", at_random, 0, steps=201)
    assert [len(e.rewards) for e in found] == [200, 200]


def test_a_policy_acts_on_what_it_sees() -> None:
    env = make("Pendulum-v1")
    policy = KINDS["deterministic"](spaces_of(env), 4, 1, "tanh", None, torch.Generator().manual_seed(0))
    (episode,) = record("Pendulum-v1", by_policy(policy), 0, episodes=1)
    with torch.no_grad():
        expected = 2 * policy.mode(torch.stack([flat(obs) for obs in episode.observations[:-1]]))
    np.testing.assert_allclose(episode.actions, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("capacity", [1000, 150])
def test_a_replay_is_split_where_its_episodes_ended(capacity: int) -> None:
    """Two environments filled it in turns; with room for 150 the oldest rows are gone."""
    envs = Environments("CartPole-v1", 2, 5)
    policy = KINDS["categorical"](envs.spaces, 4, 1, "tanh", None, torch.Generator().manual_seed(0))
    replay = Replay(envs.spaces, capacity, 2)
    source = ReplaySource(envs, policy, replay, 4, 0, Exploration(200, 0.0, 0.0, 0.0, 0), 1, 5)
    source.next(0)
    episodes = from_replay("CartPole-v1", replay.tensors(), 2)
    rows = {tuple(row) for e in episodes for row in np.concatenate(
        [e.observations[:-1], e.actions[:, None], e.observations[1:], e.terminations[:, None]], 1).tolist()}
    held = {name: replay.columns[name][:len(replay)] for name in COLUMNS}
    assert rows == {tuple(row) for row in torch.cat(
        [held["obs"], held["action"][:, None], held["next_obs"], held["terminated"][:, None]], 1).tolist()}
    assert sum(len(e.rewards) for e in episodes) == len(replay) == min(capacity, 202)
    assert sum(not e.terminations[-1] for e in episodes) <= 2  # what each environment was in the middle of
    assert all(not e.terminations[:-1].any() and e.truncations[-1] != e.terminations[-1] for e in episodes)
