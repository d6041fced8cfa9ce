"""What a user gave, what a task suggests, and what a stored run holds become one plan."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli.resolve import Plan, resolve, resume_from
from posttrain.core.errors import UserError
from posttrain.tasks import load_task


def test_a_task_suggests_and_the_user_decides() -> None:
    suggested = load_task("addition").defaults
    assert suggested  # the test needs a task with suggestions
    plan = resolve("grpo", {"task": "addition", "seed": 3})
    for name, value in suggested.items():
        assert getattr(plan.config, name) == value
    assert plan.config.out == "runs/grpo-addition-3"
    assert resolve("grpo", {"max_new_tokens": 7}).config.max_new_tokens == 7


def test_options_go_where_they_belong() -> None:
    plan = resolve("GRPO", {"clip_high": 0.3, "epochs": 2, "steps": 5})
    assert (plan.name, plan.config.steps) == ("grpo", 5)
    assert plan.method == type(plan.method)(clip_high=0.3, epochs=2)  # type: ignore[call-arg]


@pytest.mark.parametrize(("given", "line"), [
    ({"clip_hgih": 0.3}, "no such option 'clip_hgih'; did you mean 'clip_high'?"),
    ({"step": 3}, "no such option 'step'; did you mean 'steps'?"),
    ({"steps": 0}, "steps = 0: must be ≥ 1"),
    ({"clip_high": -1.0}, "clip_high = -1.0: must be ≥ 0"),
    ({"task": "additoin"}, "did you mean 'addition'?"),
])
def test_wrong_options(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=re.escape(line)):
        resolve("grpo", given)


def store(folder: Path, plan: Plan) -> None:
    """A run's config.json, as training writes it."""
    told = {"method": plan.name, "hyperparameters": dataclasses.asdict(plan.method),
            "config": dataclasses.asdict(plan.config), "versions": {}}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(told))


def test_resume_keeps_everything(tmp_path: Path) -> None:
    plan = resolve("grpo", {"clip_high": 0.3, "betas": (0.8, 0.9), "stop": ("a", "b"), "out": "elsewhere"})
    store(tmp_path / "x", plan)
    back = resume_from(str(tmp_path / "x"), "", {})
    assert back.method == plan.method
    assert back.config == dataclasses.replace(plan.config, out=str(tmp_path / "x"))  # it may have been moved
    agreeing = {"clip_high": 0.3, "betas": (0.8, 0.9)}
    assert resume_from(str(tmp_path / "x"), "GRPO", agreeing).config == back.config


@pytest.mark.parametrize(("given", "line"), [
    ({"steps": 200}, "steps = 200: the run in "),
    ({"clip_high": 0.4}, "clip_high = 0.4: the run in "),
    ({"stpes": 100}, "no such option 'stpes'; did you mean 'steps'?"),
])
def test_resume_changes_nothing(tmp_path: Path, given: dict[str, Any], line: str) -> None:
    store(tmp_path / "x", resolve("grpo", {}))
    with pytest.raises(UserError, match=re.escape(line)):
        resume_from(str(tmp_path / "x"), "", given)


def test_resume_by_another_method(tmp_path: Path) -> None:
    store(tmp_path / "x", resolve("grpo", {}))
    with pytest.raises(UserError, match=r"method = 'ppo': the run in .* has 'grpo'"):
        resume_from(str(tmp_path / "x"), "ppo", {})


@pytest.mark.parametrize("text", [
    "", "[]", "{}", '{"method": "grpo"}', '{"method": 1, "hyperparameters": 2}', "\xff"])
def test_resume_from_a_damaged_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="not the configuration of a run"):
        resume_from(str(tmp_path), "", {})


def test_resume_from_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run here"):
        resume_from(str(tmp_path), "", {})
    with pytest.raises(UserError, match="resume needs the run's folder"):
        resume_from("", "", {})
