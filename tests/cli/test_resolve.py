"""What a user gave, what a task suggests, and what a stored run holds become one plan."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli.resolve import Plan, resolve, resume_from
from posttrain.core import catalog
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
            "curriculum": dataclasses.asdict(plan.curriculum) if plan.curriculum else {},
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


def test_a_curriculum_comes_with_its_own_options(tmp_path: Path) -> None:
    given = {"curriculum": "KNAPSACK_RL", "pool": 64, "clip_high": 0.3}
    plan = resolve("grpo", given)
    assert plan.config.curriculum == "knapsack-rl"
    assert plan.curriculum == catalog.make_curriculum("knapsack-rl", pool=64)
    store(tmp_path / "x", plan)
    back = resume_from(str(tmp_path / "x"), "", {"pool": 64})
    assert back.curriculum == plan.curriculum
    assert resolve("grpo", {}).curriculum is None
    with pytest.raises(UserError, match=r"pool = 32: the run in .* has 64"):
        resume_from(str(tmp_path / "x"), "", {"pool": 32})
    with pytest.raises(UserError, match="no such option 'pool'"):
        resolve("grpo", {"pool": 64})
    with pytest.raises(UserError, match="pool = 0: must be ≥ 1"):
        resolve("grpo", {"curriculum": "knapsack-rl", "pool": 0})


def test_what_the_run_cannot_learn_from_is_refused_at_once(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": p, "chosen": "a", "rejected": "b"}) for p in "xyz"]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    task = {"task": str(tmp_path / "pairs.jsonl")}
    assert resolve("dpo", task).config.source == "auto"
    with pytest.raises(UserError, match="samples = 4: nothing is sampled"):
        resolve("dpo", {**task, "samples": 4})
    with pytest.raises(UserError, match="grpo learns from fresh samples, and nothing scores samples"):
        resolve("grpo", task)
    with pytest.raises(UserError, match="source = 'given': grpo learns from fresh samples"):
        resolve("grpo", {"source": "given"})


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
