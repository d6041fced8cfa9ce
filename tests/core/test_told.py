"""A run begun in one folder is told the same when it is read from another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain.core.told import read_config


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder with problems, a verifier, a model, and a run that was begun in it."""
    begun = tmp_path / "begun"
    (begun / "models/mine").mkdir(parents=True)
    (begun / "runs/x").mkdir(parents=True)
    (begun / "smollm2-135m").mkdir()  # by chance called as a known model is
    for name in ("problems.jsonl", "rewards.py", "runs/old.jsonl"):
        (begun / name).write_text("", encoding="utf-8")
    return begun


def read(begun: Path, **config: object) -> dict[str, object]:
    told = {"method": "grpo", "config": config, "begun_in": str(begun)}
    (begun / "runs/x/config.json").write_text(json.dumps(told), encoding="utf-8")
    found: dict[str, object] = read_config(begun / "runs/x")["config"]
    return found


def test_what_leads_somewhere_from_there_does_so_from_here(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert read(begun, task="problems.jsonl", verifier="rewards.py:score", policy="models/mine", heldout="",
                dataset=["runs/x", "D4RL/pen/human-v2"], lr=0.1) == {
        "task": f"{begun}/problems.jsonl", "verifier": f"{begun}/rewards.py:score", "policy": f"{begun}/models/mine",
        "heldout": "", "dataset": [f"{begun}/runs/x", "D4RL/pen/human-v2"], "lr": 0.1}
    assert read(begun, task="addition,problems.jsonl") == {"task": f"addition,{begun}/problems.jsonl"}


@pytest.mark.parametrize("name", ["smollm2-135m", "addition", "rewards:score", "gone.jsonl", "CartPole-v1",
                                  "/elsewhere/problems.jsonl"])
def test_names_and_what_is_not_there_stay(begun: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir("/")
    assert read(begun, policy=name) == {"policy": name}


def test_in_the_same_folder_nothing_changes(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(begun)
    assert read(begun, task="problems.jsonl") == {"task": "problems.jsonl"}


def test_a_run_that_is_gone_from_where_it_was_begun_is_read(begun: Path) -> None:
    assert read(begun / "runs/..", task="addition") == {"task": "addition"}
    (begun / "runs/x/config.json").write_text(json.dumps({"config": {"task": "problems.jsonl"}, "begun_in": "/gone"}),
                                              encoding="utf-8")
    assert read_config(begun / "runs/x")["config"] == {"task": "problems.jsonl"}
