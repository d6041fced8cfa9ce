"""Whole on-policy runs with policies that remember or explore otherwise: learnt, resumed, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import t_maze  # noqa: F401  # registers TMaze-v0
import torch
from safetensors.torch import load_file

import posttrain
from posttrain.cli.resolve import resolve
from posttrain.core.errors import UserError
from posttrain.policies import control
from posttrain.train.display import Display
from posttrain.train.run import train

SMALL = {"width": 8, "steps": 4, "eval_episodes": 2, "checkpoint_every": 2, "segment": 48, "minibatches": 4,
         "epochs": 2, "envs": 2}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "remembers": ("ppo", {"task": "CartPole-v1", "memory": 4, "recall": 8}),
    "remembers whole episodes": ("grpo", {"task": "CartPole-v1", "memory": 4, "starts": 2, "samples": 3}),
    "follows the state": ("gsde", {"task": "Pendulum-v1"}),
    "goes to the ends": ("bang-bang-bernoulli", {"task": "Pendulum-v1", "memory": 3}),
    "between decision and chance": ("pdppo", {"task": "posttrain/LotSizing-v0", "memory": 3}),
    "acts otherwise": ("props", {"task": "CartPole-v1", "history": 2, "rounds": 2, "every": 2, "segment": 16,
                                 "normalize_reward": True, "normalize_obs": True}),
    "discovered": ("discovered-po", {"task": "CartPole-v1"}),
}


def options(run: str, out: Path) -> tuple[str, dict[str, Any]]:
    name, own = RUNS[run]
    small = {key: value for key, value in SMALL.items() if name != "grpo" or key not in ("minibatches", "epochs")}
    return name, {**small, **own, "out": str(out)}


class StopAfter(Display):
    def step(self, step: int, metrics: Any, timing: Any) -> None:
        if step == 3:
            raise RuntimeError("killed")


@pytest.mark.parametrize("run", RUNS)
def test_a_killed_run_resumes_to_the_same_end(run: str, tmp_path: Path) -> None:
    """What is remembered of the episodes under way, the running return and all else: as they were."""
    name, given = options(run, tmp_path / "whole")
    posttrain.train(name, **given)
    plan = resolve(name, options(run, tmp_path / "killed")[1])
    with pytest.raises(RuntimeError, match="killed"):
        train(plan.method, plan.config, StopAfter())
    posttrain.train(name, out=str(tmp_path / "killed"), resume=True)
    for file in ("metrics.jsonl", "evaluations.jsonl"):
        whole, killed = ((tmp_path / part / file).read_text(encoding="utf-8") for part in ("whole", "killed"))
        assert whole == killed
    one, other = (load_file(tmp_path / part / "final/weights.safetensors") for part in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    kept = control.load(tmp_path / "whole/final")
    assert kept.remembered == given.get("memory", 0)


@pytest.mark.parametrize(("memory", "low", "high"), [(0, -0.6, 0.6), (8, 0.9, 1.0)])
def test_only_a_memory_finds_its_way(memory: int, low: float, high: float, tmp_path: Path) -> None:
    """Without one the turn is a guess, worth 0 on average; 40 episodes deviate by 0.16."""
    run = posttrain.train("ppo", task="TMaze-v0", memory=memory, recall=8, steps=12, envs=8, segment=40, minibatches=4,
                          epochs=8, lr=1e-2, width=16, layers=1, normalize_obs=False, normalize_reward=False,
                          eval_episodes=40, out=str(tmp_path / "run"))
    assert low <= run.summary["after"]["return"] <= high


@pytest.mark.parametrize(("name", "given", "message"), [
    ("sac", {"task": "Pendulum-v1", "memory": 4}, "memory = 4: sac learns from single actions"),
    ("sac", {"task": "Pendulum-v1", "policy": "bang-bang"}, "policy = 'bang-bang': sac learns from replayed actions"),
    ("gsde", {"task": "Pendulum-v1", "policy": "gaussian"}, "hold = 4: only the noise of policy = 'state-dependent'"),
    ("ppo", {"task": "CartPole-v1", "log_std": -1.0}, "log_std = -1: only Gaussian policies with one σ everywhere"),
    ("iql", {"task": "Pendulum-v1", "log_std": -6.0}, "policies of the kind 'bounded-gaussian' keep it in [-5, 2]"),
    ("gsde", {"task": "CartPole-v1"}, "its actions are numbered, and gsde's policy, 'state-dependent', has numbers in"),
])
def test_what_cannot_be_is_one_line(name: str, given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        posttrain.train(name, **given, out=str(tmp_path / "run"))
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()
