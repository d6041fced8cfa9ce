"""The example controllers of other packages' tasks succeed, and the documentation shows them whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from posttrain.data.dataset import read_dataset
from posttrain.train.datasets import make_dataset

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.mark.parametrize("name", ["metaworld_experts.py", "ogbench_oracles.py"])
def test_the_documentation_shows_the_whole_file(name: str) -> None:
    shown = (EXAMPLES.parent / "docs/control.md").read_text(encoding="utf-8")
    assert f"```python\n{(EXAMPLES / name).read_text(encoding='utf-8')}```" in shown


@pytest.mark.parametrize(("package", "task", "script", "steps", "least"), [
    ("metaworld", "metaworld_experts:reach-v3", "metaworld_experts:Expert", 501, 4000),
    ("metaworld", "metaworld_experts:button-press-topdown-v3", "metaworld_experts:Expert", 501, 3000),
    ("ogbench", "ogbench_oracles:pointmaze-medium-singletask-v0", "ogbench_oracles:Walk", 301, -500),
    ("ogbench", "ogbench_oracles:cube-single-singletask-v0", "ogbench_oracles:Place", 101, -199),
])
def test_an_oracle_succeeds_and_its_episodes_play_again(package: str, task: str, script: str, steps: int, least: float,
                                                        tmp_path: Path) -> None:
    pytest.importorskip(package)
    told = make_dataset(task, tmp_path / "data", kind="scripted", policy=script, steps=steps, seed=0, expert="",
                        reference_episodes=1)
    assert told["returns"]["lowest"] > least > told["references"]["random"]
    made = read_dataset(str(tmp_path / "data"))
    assert made.action.abs().max() <= 1 and made.task == task.partition(":")[2]
    again = make_dataset(task, tmp_path / "again", kind="scripted", policy=script, steps=1, seed=0, expert="",
                         reference_episodes=1)
    one = read_dataset(str(tmp_path / "again"))
    assert again["steps"] < told["steps"]
    np.testing.assert_array_equal(one.obs, made.obs[:len(one)])
    assert not np.array_equal(made.obs[made.episode == 1][0], one.obs[0])
