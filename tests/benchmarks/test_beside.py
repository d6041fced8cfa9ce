"""Peers side by side: what each is told, the tables, and a peer's run where it is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import beside
import control_speed
import pytest
from versus.paced import Work as Turns
from versus.peer_returns import Work
from versus.side import Side, environment

from posttrain.cli.resolve import resolve


@pytest.mark.parametrize("name", beside.ACTING)
def test_both_act_as_often(name: str, tmp_path: Path) -> None:
    asked = beside.options(beside.Pairing(name, beside.ACTING[name], 21_000), 0, tmp_path)
    config = resolve(asked.pop("method"), {**asked, "out": ""}).config
    assert config.random_steps + config.steps * config.rounds * config.envs == 21_000


@pytest.mark.parametrize("name", beside.LOGGED)
def test_both_learn_as_often(name: str, tmp_path: Path) -> None:
    asked = beside.options(beside.Pairing(name, beside.LOGGED_ON, 5000, "medium"), 0, tmp_path)
    config = resolve(asked.pop("method"), {**asked, "out": ""}).config
    assert config.steps * config.rounds == 5000
    assert config.dataset == (str(tmp_path / "medium"),)


def test_table() -> None:
    row = {"name": "iql medium", "task": "Pendulum-v1", "length": 5000, "peer": "d3rlpy", "ours": [-100.0, -110, -120],
           "theirs": [-100.0], "seconds": [[1.0, 2, 9], [4.0]]}
    lines = beside.table({"methods": {"a": row}, "machine": "2 cores"})
    # mean −110, deviation 10, half width 4.303 · 10 / √3 = 24.8; one seed has no interval
    assert lines[2] == ("| `iql medium` | Pendulum-v1, 5,000 updates | -110 ± 24.8 (-100, -110, -120) | -100 (-100) "
                        "| d3rlpy | 2, 4 |")
    beside.between((beside.ROOT / "docs/reference.md").read_text(encoding="utf-8"), lines, "beside")


def test_speed_is_of_the_median_turn() -> None:
    turns = {"posttrain": [{"seconds": s, "cpu_seconds": s, "peak_bytes": 2**30} for s in (1.0, 2.0, 9.0)],
             "SB3": [{"seconds": s, "cpu_seconds": 2.0, "peak_bytes": 2**31} for s in (3.0, 3.0, 9.0)]}
    lines = control_speed.table({"ppo": turns})
    # a turn is 2048 actions and 320 updates: 1024 and 160 a second in 2 s, 683 and 107 in 3 s
    # of each turn: 3 / 1, 3 / 2, 9 / 9, whose quarters end at (1 + 1.5) / 2 and (1.5 + 3) / 2
    assert lines[2] == "| ppo | posttrain | 1024 | 160 | 0.98 | 1.00 |  |  |"
    assert lines[3] == "| ppo | SB3 | 683 | 107 | 0.98 | 2.00 | 1.50× as fast | 1.25 to 2.25× |"


def test_an_environment_paces_its_program() -> None:
    with Side("posttrain", "versus.paced", Turns("posttrain", "sac", 40, 20).dump(), 1) as side:
        told = [side.receive(60.0), side.step(60.0), side.step(60.0)]
    assert all(one["seconds"] > 0 for one in told)


@pytest.mark.parametrize(("name", "task", "options"), [
    ("sac", "Pendulum-v1", {}), ("dqn", "CartPole-v1", beside.ZOO_DQN)])
def test_a_peer_that_acts(name: str, task: str, options: dict[str, Any]) -> None:
    pytest.importorskip("stable_baselines3")
    work = Work(name, task, 1010, 0, episodes=2, options=options)
    done = subprocess.run([sys.executable, "-m", "versus.peer_returns", work.dump()], env=environment(1),
                          capture_output=True, text=True, check=True, timeout=60)
    assert len(json.loads(done.stdout.splitlines()[-1])["scores"]) == 2
