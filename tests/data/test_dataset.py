"""Minari datasets: what is written is what is read, and what ends an episode is told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from posttrain.core.errors import UserError
from posttrain.data.dataset import Dataset, Episode, read_dataset, read_datasets, write_dataset
from posttrain.data.steps import Spaces


def episode(rewards: list[float], begin: float, terminated: bool, action: float = 1.0) -> Episode:
    """Observations begin, begin + 1 … in each of Pendulum's three numbers."""
    n = len(rewards)
    last = np.arange(n) == n - 1
    seen = (begin + np.arange(n + 1, dtype=np.float32))[:, None].repeat(3, 1)
    return Episode(seen, np.full((n, 1), action, np.float32), np.array(rewards), last & terminated,
                   last & (not terminated), seed=7)


EPISODES = [episode([1.0, 2.0, 4.0], 0.0, terminated=True), episode([8.0, 16.0], 10.0, terminated=False, action=-2.0)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    env = gym.make("Pendulum-v1")
    write_dataset(tmp_path, env, "random", EPISODES, "a test's", (-1000.0, -100.0))
    return tmp_path


def test_round_trip(folder: Path) -> None:
    found = read_dataset(str(folder))
    assert found.spaces == Spaces(3, 1, False)
    assert found.obs[:, 0].tolist() == [0, 1, 2, 10, 11]
    assert found.next_obs[:, 0].tolist() == [1, 2, 3, 11, 12]  # 3 and 12 are the episodes' last
    assert found.terminated.tolist() == [False, False, True, False, False]  # the second was cut off
    assert found.episode.tolist() == [0, 0, 0, 1, 1]
    assert found.action[:, 0].tolist() == [0.5, 0.5, 0.5, -1, -1]  # torques 1 and −2 of ± 2
    assert found.task == "Pendulum-v1"
    assert found.references == (-1000.0, -100.0)
    assert found.returns.tolist() == [7.0, 24.0]


def test_a_folder_may_be_named_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    write_dataset(Path("here"), gym.make("Pendulum-v1"), "random", EPISODES, "a test's", None)
    assert len(read_dataset("here")) == 5


def test_minari_reads_what_was_written(folder: Path) -> None:
    import minari

    data = minari.MinariDataset(folder / "data")
    assert (data.total_episodes, data.total_steps) == (2, 5)
    first, second = data.iterate_episodes()
    assert first.terminations.tolist() == [False, False, True] and not first.truncations.any()
    assert second.truncations.tolist() == [False, True] and not second.terminations.any()
    assert len(second.observations) == 3
    assert minari.get_normalized_score(data, np.array([-1000.0, -550.0])).tolist() == [0, 0.5]
    assert next(iter(data.storage.get_episode_metadata([0])))["seed"] == 7


def test_what_follows_by_hand(folder: Path) -> None:
    # γ = ½.  First episode: 4;  2 + ½ · 4 = 4;  1 + ½ · 4 = 3.  Second: 16;  8 + ½ · 16 = 16.
    found = read_dataset(str(folder))
    assert found.to_go(0.5).tolist() == [3, 4, 4, 16, 16]
    assert found.follows.tolist() == [True, True, False, True, False]
    after = found.next_action[:, 0]
    assert after.isnan().tolist() == [False, False, True, False, True]
    assert after[[0, 1, 3]].tolist() == [0.5, 0.5, -1]


def test_several_are_joined(folder: Path) -> None:
    one, both = read_dataset(str(folder)), read_datasets([str(folder), str(folder / "data")])
    assert both.episode.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert torch.equal(both.to_go(0.9), one.to_go(0.9).repeat(2))
    assert not both.follows[4]  # one set's last row leads nowhere


def test_numbered_actions_begin_at_nought(tmp_path: Path) -> None:
    env: Any = gym.make("CartPole-v1")
    env.unwrapped.action_space = gym.spaces.Discrete(2, start=3)
    told = Episode(np.zeros((3, 4), np.float32), np.array([3, 4]), np.ones(2), np.array([False, False]),
                   np.array([False, True]))
    write_dataset(tmp_path, env, "random", [told], "a test's", None)
    found = read_dataset(str(tmp_path))
    assert found.spaces == Spaces(4, 2, True)
    assert found.action.tolist() == [0, 1]
    assert found.references is None
    assert found.next_action[0] == 1 and found.next_action[1].isnan()


def test_what_cannot_be_read_is_one_line(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="dataset = 'no/such-v0': no such folder, and no Minari dataset of that name"):
        read_dataset("no/such-v0")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="a folder without a Minari dataset"):
        read_dataset(str(tmp_path / "empty"))
    file = folder / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged"):
        read_dataset(str(folder))


def test_sets_of_other_spaces_are_not_joined(folder: Path, tmp_path: Path) -> None:
    env = gym.make("CartPole-v1")
    told = Episode(np.zeros((2, 4), np.float32), np.array([1]), np.ones(1), np.array([True]), np.array([False]))
    write_dataset(tmp_path / "other", env, "random", [told], "a test's", None)
    with pytest.raises(UserError, match="holds observations of 4 numbers and 2 numbered actions, and"):
        read_datasets([str(folder), str(tmp_path / "other")])


def test_a_dataset_is_transitions_in_order() -> None:
    found = Dataset(Spaces(1, 1, False), *(torch.zeros(2, 1) for _ in range(2)), torch.ones(2), torch.zeros(2, 1),
                    torch.tensor([False, False]), torch.tensor([0, 0]))
    assert len(found) == 2
    assert found.to_go(1.0).tolist() == [2, 1]
