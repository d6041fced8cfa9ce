"""Whole runs that learn from given answers or choose their problems: what they leave, and that they resume."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from posttrain.core.catalog import make, make_curriculum
from posttrain.core.errors import UserError
from posttrain.train.config import LanguageConfig
from posttrain.train.display import Display
from posttrain.train.run import train
from tests.tiny_folder import write_tiny_folder


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("policy"))


def config_of(policy: Path, folder: Path, **options: Any) -> LanguageConfig:
    return replace(LanguageConfig(policy=str(policy), steps=4, out=str(folder / "run"), prompts=4, samples=4,
                                  max_new_tokens=6, eval_problems=4, checkpoint_every=100, lr=1e-2,
                                  threads=1), **options)


def preferences(folder: Path, **keys: Any) -> str:
    lines = [{"prompt": f"say {c}", "chosen": c, "rejected": f"{c}{c}"} | keys for c in "abcdefghijklmnop"]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder / "pairs.jsonl")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Told(Display):
    def __init__(self) -> None:
        self.objective_lines: dict[str, str] = {}
        self.last: list[str] = []

    def objective(self, lines: Any) -> None:
        self.objective_lines = dict(lines)

    def finish(self, lines: Any) -> None:
        self.last = list(lines)


class PressCtrlC(Display):
    def step(self, step: int, *_: object) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_preferences_without_a_verifier(policy: Path, tmp_path: Path) -> None:
    told = Told()
    config = config_of(policy, tmp_path, task=preferences(tmp_path), steps=8)
    out = train(make("dpo"), config, told).folder
    metrics = rows(out / "metrics.jsonl")
    assert metrics[-1]["margin"] > metrics[0]["margin"] == 0  # it learns them
    assert metrics[0]["reward"] == 0.5
    assert not {"logp_gap", "logp_gap_max"} & {name for row in metrics for name in row}
    assert {"preference_accuracy", "interval", "scores"} <= set(rows(out / "evaluations.jsonl")[0])
    summary = json.loads((out / "summary.json").read_text())
    assert summary["measure"] == "preference_accuracy"
    assert summary["gain"] == summary["after"]["preference_accuracy"] - summary["before"]["preference_accuracy"]
    assert told.last[0].startswith("preference accuracy ")
    assert "4 prompts with the answers that the task gives to each" in told.objective_lines["batch"]
    assert "samples" not in told.objective_lines["batch"]
    table = pq.read_table(out / "rollouts/step-000001.parquet").to_pylist()
    assert len(table) == 8
    assert all(row["given"] and row["version"] == [-1] * len(row["token"]) for row in table)
    assert all(math.isnan(p) for row in table for p in row["log_prob"])


def test_the_gold_answer_as_demonstration(policy: Path, tmp_path: Path) -> None:
    out = train(make("sft"), config_of(policy, tmp_path, task="addition", steps=6, max_new_tokens=4)).folder
    losses = [row["loss/policy"] for row in rows(out / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    assert "accuracy" in rows(out / "evaluations.jsonl")[0]  # the task can score, so that is what counts
    table = pq.read_table(out / "rollouts/step-000001.parquet").to_pylist()
    assert all(row["reward"] == 1 and row["completion"].isdigit() for row in table)


def test_an_answer_that_does_not_fit_writes_nothing(policy: Path, tmp_path: Path) -> None:
    config = config_of(policy, tmp_path, task=preferences(tmp_path, rejected="much too long"))
    with pytest.raises(UserError, match="max_new_tokens = 6: the given answer 'much too long' has 14 tokens"):
        train(make("dpo"), config)
    assert not Path(config.out).exists()


@pytest.mark.parametrize(("method", "options", "curriculum"), [
    ("dpo", {"task": "pairs"}, None),
    ("gkd", {"task": "pairs+answers", "verifier": "exact", "teacher": "policy"}, None),
    ("grpo", {"task": "letters", "dynamic_sampling": 3}, None),
    ("grpo", {"task": "letters", "curriculum": "knapsack-rl"}, {}),
    ("grpo", {"task": "letters", "curriculum": "mmr1-vas"}, {"diversity_weight": 0.5}),
    ("dapo", {"task": "addition,char-addition", "curriculum": "dump", "dynamic_sampling": 2}, {}),
    ("rloo", {"task": "addition,char-addition", "curriculum": "sec"}, {"arm_temperature": 0.01}),
])
def test_interrupted_run_equals_whole_run(policy: Path, tmp_path: Path, method: str, options: dict[str, Any],
                                          curriculum: dict[str, Any] | None) -> None:
    if options["task"] == "letters":  # a reward that a random model often earns
        (tmp_path / "check.py").write_text("def check(completion, answer):\n    return len(completion) % 2\n")
        options = options | {"task": preferences(tmp_path, answer="a"), "verifier": f"{tmp_path / 'check.py'}:check"}
    elif options["task"].startswith("pairs"):
        answers = {"answer": "a"} if options["task"].endswith("answers") else {}
        options = options | {"task": preferences(tmp_path, **answers)}
    if "teacher" in options:
        options = options | {"teacher": str(policy)}
    made = make(method, epochs=2, minibatches=2)
    chooser = None if curriculum is None else make_curriculum(options["curriculum"], **curriculum)
    config = config_of(policy, tmp_path, **options)
    whole = train(made, replace(config, out=config.out + "-whole"), curriculum=chooser).folder
    with pytest.raises(KeyboardInterrupt):
        train(made, config, PressCtrlC(), curriculum=chooser)
    out = train(made, config, resume=True, curriculum=chooser).folder
    for name in ("metrics.jsonl", "evaluations.jsonl", "final/model.safetensors", "rollouts/step-000004.parquet"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    metrics = rows(out / "metrics.jsonl")
    if config.dynamic_sampling > 1:
        assert all(row["prompts_drawn"] - row["groups_dropped"] <= 4 for row in metrics)
        assert any(row["prompts_drawn"] > 4 for row in metrics)
    if method == "gkd":
        table = pq.read_table(out / "rollouts/step-000001.parquet").to_pylist()
        assert [row["given"] for row in table] == [*[False] * 4, *[True] * 2] * 4
        assert all(math.isfinite(p) for row in table if not row["given"] for p in row["log_prob"])
    if config.curriculum in ("sec", "dump"):
        assert all(sum(v for k, v in row.items() if k.startswith("drawn/")) == pytest.approx(1) for row in metrics)
        evaluation = rows(out / "evaluations.jsonl")[0]  # two held-out problems of each part
        parts = [evaluation["accuracy/addition"], evaluation["accuracy/char-addition"]]
        assert evaluation["accuracy"] == pytest.approx(sum(parts) / 2)


def test_parts_that_a_curriculum_needs(policy: Path, tmp_path: Path) -> None:
    config = config_of(policy, tmp_path, task="addition", curriculum="sec")
    with pytest.raises(UserError, match="chooses among the parts of a task, and 'addition' has one"):
        train(make("grpo"), config)
    assert not Path(config.out).exists()


def test_a_mixture_from_seed_runs(policy: Path, tmp_path: Path) -> None:
    """Three runs on mixtures of two parts, and one on what their scores predict."""
    config = config_of(policy, tmp_path, task="addition,char-addition", steps=1, curriculum="modomodo")
    seeds = []
    for weights in ("1,0", "0,1", ""):
        seed = replace(config, out=f"{config.out}-{len(seeds)}")
        chosen = make_curriculum("modomodo", part_weights=weights)
        seeds.append(str(train(make("grpo"), seed, curriculum=chosen).folder))
    assert rows(Path(seeds[0]) / "metrics.jsonl")[0]["drawn/addition"] == 1
    assert rows(Path(seeds[1]) / "metrics.jsonl")[0]["drawn/addition"] == 0
    told = Told()
    out = train(make("grpo"), replace(config, checkpoint_every=1, steps=2), told,
                curriculum=make_curriculum("modomodo", seed_runs=",".join(seeds))).folder
    assert "drawn by modomodo from addition, char-addition" in told.objective_lines["problems"]
    state = json.loads((out / "checkpoints/step-000001/state.json").read_text())["setting"]["problems"]["own"]
    assert sum(state["weights"]) == pytest.approx(1)
