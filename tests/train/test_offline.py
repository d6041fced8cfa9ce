"""Whole runs on logged data: made, learnt from, resumed, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import posttrain
from posttrain.cli.resolve import resolve
from posttrain.core.errors import UserError
from posttrain.data.dataset import read_dataset
from posttrain.policies import control
from posttrain.train.config import ControlConfig
from posttrain.train.control import ControlSetting
from posttrain.train.datasets import make_dataset
from posttrain.train.display import Display
from posttrain.train.run import train

TASK = "Pendulum-v1"
SMALL: dict[str, Any] = {"task": TASK, "width": 8, "steps": 4, "rounds": 5, "batch_size": 16, "eval_episodes": 2,
                         "checkpoint_every": 2}
MADE: dict[str, Any] = {"policy": "", "steps": 250, "seed": 0, "expert": "", "reference_episodes": 2}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "random"
    make_dataset(TASK, folder, kind="random", **MADE)
    return str(folder)


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


class StopAfter(Display):
    """Ctrl-C in the middle of step 3."""

    def step(self, step: int, metrics: Any, timing: Any) -> None:
        if step == 3:
            raise RuntimeError("killed")


@pytest.mark.parametrize(("name", "more"), [
    ("td3-bc", {}),  # nothing acts; observations are normalised by the dataset
    ("iql", {"dataset_share": 0.5, "random_steps": 20}),  # an environment in mid-episode, and a replay
    ("decision-transformer", {"layers": 1, "heads": 2, "context": 4, "curriculum": "trajectory-weighting"}),
    ("hnpg", {"envs": 2, "segment": 10, "epochs": 2, "renewal": 3}),
    ("uni-o4", {"layers": 1, "clone_updates": 7, "judge_every": 4, "horizon": 2, "model_width": 8, "model_updates": 3,
                "model_members": 3, "model_elites": 2}),
    ("policy-guided-diffusion", {
        "dataset_share": 0.5, "synthetic": 5, "synthetic_count": 6, "synthetic_every": 3, "synthetic_passes": 2,
        "synthetic_width": 8, "synthetic_updates": 3}),
    ("ravl", {"envs": 3, "capacity": 40, "dataset_share": 0.5, "model_width": 8, "model_updates": 3, "members": 2}),
])
def test_a_killed_run_resumes_to_the_same_end(name: str, more: dict[str, Any], logged: str, tmp_path: Path) -> None:
    options = {**SMALL, **more, "dataset": (logged,)}
    posttrain.train(name, **options, out=str(tmp_path / "whole"))
    plan = resolve(name, {**options, "out": str(tmp_path / "killed")})
    with pytest.raises(RuntimeError, match="killed"):
        train(plan.method, plan.config, StopAfter())
    posttrain.train(name, out=str(tmp_path / "killed"), resume=True)
    assert text(tmp_path / "whole" / "metrics.jsonl") == text(tmp_path / "killed" / "metrics.jsonl")
    whole, killed = (load_file(tmp_path / run / "final/weights.safetensors") for run in ("whole", "killed"))
    assert all(torch.equal(whole[key], killed[key]) for key in whole)


def test_no_environment_is_stepped_and_the_policy_is_saved_with_what_normalises_it(logged: str, tmp_path: Path) -> None:
    config = ControlConfig(task=TASK, width=8, dataset=(logged,), normalize_obs=True, policy="deterministic")
    setting = ControlSetting(posttrain.method("td3-bc"), config, None)
    setting.next(0)
    assert "envs" not in vars(setting)  # which are made when they are first needed
    data = read_dataset(logged)
    setting.policy.save(tmp_path / "policy")
    kept = control.load(tmp_path / "policy").normalizer
    assert kept is not None
    torch.testing.assert_close(kept.mean, data.obs.double().mean(0))
    torch.testing.assert_close(kept.std, data.obs.double().std(0, correction=0))
    # Q sees them normalised too: its body says of normalised ones what Q says of those in the dataset.
    obs, action = data.obs[:5], data.action[:5]
    q = setting.nets.q
    torch.testing.assert_close(q(obs, action), q.body(torch.cat([kept(obs), action], -1))[..., 0])


def test_a_chosen_policy_goes_on_online(logged: str, tmp_path: Path) -> None:
    """What uni-o4 leaves is what ppo begins with: the ensemble, who of it acts, V and what observations were divided
    by; only that member moves."""
    model = {"model_width": 8, "model_updates": 3, "model_members": 2, "model_elites": 1, "ensemble": 3}
    own = {**SMALL, **model, "layers": 1, "clone_updates": 3, "horizon": 2, "dataset": (logged,)}
    posttrain.train("uni-o4", **own, out=str(tmp_path / "offline"))
    posttrain.train("ppo", start_from=str(tmp_path / "offline"), task=TASK, steps=1, segment=30, epochs=1,
                    minibatches=2, eval_episodes=1, out=str(tmp_path / "online"))
    before, after = (load_file(tmp_path / run / "final/weights.safetensors") for run in ("offline", "online"))
    chosen = int(before["chosen"])
    moved = (after["members.weights.0"] != before["members.weights.0"]).flatten(1).any(1)
    assert moved.nonzero()[:, 0].tolist() == [chosen] == [int(after["chosen"])]
    told = json.loads(text(tmp_path / "online" / "config.json"))
    assert told["start"]["networks"] == ["policy", "critic"] and told["config"]["ensemble"] == 3


def test_every_kind_of_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that acts, then sets of its policy, of its replay and of a controller."""
    run = tmp_path / "run"
    posttrain.train("iql", **{**SMALL, "source": "replay", "random_steps": 210}, out=str(run))
    (tmp_path / "swing.py").write_text("def act(obs):\n    return [2 * obs[1]]\n")
    given = {"medium": str(run), "replay": str(run), "scripted": f"{tmp_path}/swing.py:act"}
    for kind, policy in given.items():
        told = make_dataset(TASK, tmp_path / kind, kind=kind, **{**MADE, "policy": policy})
        assert json.loads(text(tmp_path / kind / "posttrain.json")) == told
        assert "D4RL" not in text(tmp_path / kind / "posttrain.json")
        assert told["references"]["expert"] is None
        assert told["references"]["random"] < -500
    script = read_dataset(str(tmp_path / "scripted"))
    torch.testing.assert_close(script.action[:, 0], script.obs[:, 1])  # 2 sin θ of ± 2
    replay = read_dataset(str(tmp_path / "replay"))
    assert len(replay) == 210 + 10  # of two steps, of which the newest checkpoint was taken
    assert replay.episode.bincount().tolist() == [200, 20]
    assert len(read_dataset(str(tmp_path / "medium"))) == 400


def test_scores_are_held_against_the_references(logged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    config = ControlConfig(task=TASK, width=8, dataset=(logged,), eval_episodes=2, policy="deterministic")
    setting = ControlSetting(posttrain.method("td3-bc"), config, None)
    assert "normalized" not in setting.evaluate("before")
    assert setting.logged is not None
    setting.logged = replace(setting.logged, references=(-2000.0, 0.0))
    found = setting.evaluate("before")
    assert found["normalized"] == pytest.approx(100 + found["return"] / 20)


def test_nothing_is_overwritten(logged: str) -> None:
    before = text(Path(logged) / "posttrain.json")
    with pytest.raises(UserError, match="exists already; name another folder"):
        make_dataset(TASK, Path(logged), kind="random", **MADE)
    assert text(Path(logged) / "posttrain.json") == before


@pytest.mark.parametrize(("name", "given", "message"), [
    ("bc", {}, "dataset is missing: bc learns from logged transitions; give --dataset FOLDER"),
    ("sac", {"dataset_share": 0.5}, "dataset is missing: sac learns from logged transitions"),
    ("ppo", {"dataset": True}, "ppo learns from its own acting alone"),
    ("hnpg", {}, "dataset is missing: hnpg learns from logged transitions"),
    ("hnpg", {"dataset": True, "dataset_share": 1.0}, "dataset_share = 1: leaves nothing to what hnpg does itself"),
    ("hnpg", {"dataset": True, "dataset_share": 0.0}, "dataset_share = 0: leaves no row of 1000 to the dataset"),
    ("hnpg", {"dataset": True, "normalize_reward": True}, "normalize_reward = true: hnpg learns from logged rewards"),
    ("hnpg", {"dataset": True, "memory": 4}, "memory = 4: hnpg learns from single actions"),
    ("bc", {"dataset": True, "task": "CartPole-v1"}, "holds observations of 3 numbers and actions of 1 numbers, and "
     "CartPole-v1 has observations of 4 numbers and 2 numbered actions"),
    ("iql", {"dataset": True, "source": "replay"}, "source = 'replay': iql learns from dataset and a dataset is given"),
    ("iql", {"dataset": True, "dataset_share": 0.001}, "dataset_share = 0.001: leaves no row of 256 to the dataset"),
    ("iql", {"synthetic": 5}, "synthetic = 5: a model is fitted to logged transitions; give --dataset FOLDER"),
    ("td3-bc", {"dataset": True, "synthetic": 5}, "dataset_share = 1: leaves no row of 256 to what is made up"),
    ("td3-bc", {"dataset": True, "dataset_share": 0.5, "synthetic": 201}, "the longest logged episode has 200 steps"),
    ("hnpg", {"dataset": True, "synthetic": 5}, "synthetic = 5: hnpg does not learn from single transitions"),
    ("ravl", {"dataset": True, "synthetic": 5}, "synthetic = 5: the rest of a batch is what is imagined already"),
    ("iql", {"dataset": True, "replay": "prioritized"}, "replay = 'prioritized'"),
])
def test_what_cannot_be_is_one_line(name: str, given: dict[str, Any], message: str, logged: str, tmp_path: Path
                                    ) -> None:
    if given.get("dataset"):
        given = {**given, "dataset": (logged,)}
    with pytest.raises(UserError) as caught:
        posttrain.train(name, **{"task": TASK, **given}, out=str(tmp_path / "run"))
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("task", "message"), [
    ("bit_flipping:BitFlipping6-v0", "its observations name a goal, and a dataset holds one array of each"),
    ("t_maze:TMaze-v0", "this one was registered as a class; must be text, 'module:class'"),
])
def test_a_task_that_cannot_be_logged_is_one_line(task: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        make_dataset(task, tmp_path / "data", kind="random", **MADE)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("given", "message"), [
    ({"kind": "expert", "policy": "nowhere"}, "policy = 'nowhere': no finished run"),
    ({"kind": "replay", "policy": "nowhere"}, "policy = 'nowhere': no run here"),
    ({"kind": "random", "expert": "nowhere"}, "expert = 'nowhere': no finished run"),
    ({"kind": "scripted", "policy": "nowhere:act"}, "policy = 'nowhere:act'"),
])
def test_a_dataset_that_cannot_be_made_leaves_nothing(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        make_dataset(TASK, tmp_path / "data", **{**MADE, **given})
    assert message in str(caught.value)
    assert not (tmp_path / "data").exists()
