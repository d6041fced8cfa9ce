"""Whole control runs on small environments: what is written, learnt, refused and resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import posttrain
from posttrain.core import Groups, catalog, method_files
from posttrain.core.errors import UserError
from posttrain.data.steps import Steps
from posttrain.policies import control
from posttrain.rollout.environments import Environments, play
from posttrain.train.config import ControlConfig
from posttrain.train.control import ControlSetting
from posttrain.train.display import Display
from posttrain.train.run import Trainer, train

REPLAYED = {"random_steps": 40, "batch_size": 16, "rounds": 30}
SMALL: dict[str, dict[str, Any]] = {"ppo": {"segment": 64, "minibatches": 4, "epochs": 2}, "sac": REPLAYED,
                                    "iql": REPLAYED, "grpo": {"starts": 2, "samples": 3},
                                    "td3": {**REPLAYED, "replay_ratio": 2, "exploration_memory": 0.5},
                                    "crossq": {**REPLAYED, "q_width": 12, "renorm_after": 50},
                                    "c51": {**REPLAYED, "replay": "hindsight", "envs": 2},
                                    "mrq": {**REPLAYED, "period": 10, "horizon": 2},
                                    "pad": REPLAYED,
                                    "map-dqn": {**REPLAYED, "bands": 2, "replay": "prioritized"},
                                    "dqn": {**REPLAYED, "replay": "prioritized", "span": 3, "envs": 2,
                                            "epsilon_rounds": 60, "dueling": True, "copy_every": 20}}
TASKS = {"td3": "Pendulum-v1", "crossq": "Pendulum-v1", "mrq": "Pendulum-v1", "pad": "Pendulum-v1",
         "map-dqn": "CartPole-v1", "c51": "bit_flipping:BitFlipping6-v0", "dqn": "CartPole-v1",
         "ppo": "CartPole-v1", "sac": "Pendulum-v1", "iql": "Pendulum-v1", "grpo": "CartPole-v1"}


def options(name: str, out: Path, **changes: Any) -> dict[str, Any]:
    return {"task": TASKS[name], "width": 8, "steps": 4, "eval_episodes": 2, "out": str(out), "checkpoint_every": 2,
            **SMALL[name], **changes}


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


class StopAfter(Display):
    """Ctrl-C in the middle of step 3."""

    def step(self, step: int, metrics: Any, timing: Any) -> None:
        if step == 3:
            raise RuntimeError("killed")


@pytest.mark.parametrize("name", SMALL)
def test_a_killed_run_resumes_to_the_same_end(name: str, tmp_path: Path) -> None:
    """Environments in mid-episode, normalisers, replay, networks and optimizers: all as they were."""
    posttrain.train(name, **options(name, tmp_path / "whole"))
    from posttrain.cli.resolve import resolve

    plan = resolve(name, options(name, tmp_path / "killed"))
    with pytest.raises(RuntimeError, match="killed"):
        train(plan.method, plan.config, StopAfter())
    posttrain.train(name, out=str(tmp_path / "killed"), resume=True)
    for file in ("metrics.jsonl", "evaluations.jsonl"):
        assert text(tmp_path / "whole" / file) == text(tmp_path / "killed" / file)
    whole, killed = (load_file(tmp_path / run / "final/weights.safetensors") for run in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[key], killed[key]) for key in whole)


def test_what_a_run_leaves(tmp_path: Path) -> None:
    run = posttrain.train("ppo", **options("ppo", tmp_path / "run"))
    told = json.loads(text(run.folder / "config.json"))
    assert told["hyperparameters"]["kl_coef"] == 0  # its default for control
    assert told["kind"] == "categorical"
    assert run.summary["measure"] == "return"
    policy = control.load(run.folder / "final")
    seeds = [7, 8]
    assert policy.normalizer is not None and policy.normalizer.count > 0
    with torch.no_grad():
        played = play("CartPole-v1", policy.mode, seeds)
    assert [p.total for p in played] == [float(p.length) for p in played]  # CartPole pays 1 a step


@pytest.mark.parametrize("name", ["grpo", "gspo", "rloo", "tba", "dpo", "maxrl", "cispo"])
def test_methods_for_language_models_run_unchanged(name: str, tmp_path: Path) -> None:
    run = posttrain.train(name, task="CartPole-v1", width=8, steps=2, starts=2, samples=4, eval_episodes=2,
                          out=str(tmp_path / name))
    rows = [json.loads(line) for line in text(run.folder / "metrics.jsonl").splitlines()]
    assert rows[0]["logp_gap"] < 1e-6
    assert rows[0]["grad_norm"] > 0


def test_rows_are_cut_where_episodes_end() -> None:
    """CartPole falls within 64 steps: each row is one episode's stretch, and the last one goes on in the next batch."""
    method = posttrain.method("ppo", kl_coef=0.0)
    setting = ControlSetting(method, ControlConfig(task="CartPole-v1", segment=64, envs=2, width=8), None)
    first, second = (setting.source.next(step) for step in (0, 1))
    lengths = first.mask.sum(1)
    assert int(lengths.sum()) == 128
    assert torch.equal(first.reward, lengths.float())  # CartPole pays 1 a step
    open_rows = (~first.finished).nonzero()[:, 0]
    assert len(open_rows) <= 2
    steps = first.payload
    assert isinstance(steps, Steps)
    for row in open_rows.tolist():  # what was seen last is what is acted on next
        assert any(torch.equal(steps.last[row], begun) for begun in second.payload.obs[:, 0])  # type: ignore[attr-defined]


def test_ppo_bootstraps_what_was_cut_off_and_not_what_ended() -> None:
    # Two rows of one step, reward 1, V(s) = 0.5 and V(s') = 2 everywhere; γ = 0.5.  Cut off: δ = 1 + 0.5 · 2 − 0.5 =
    # 1.5.  Ended: δ = 1 − 0.5 = 0.5.  Normalised over both: ±1 (population deviation 0.5... the sample's is 0.7071).
    class Critic:
        def values(self, batch: Groups) -> torch.Tensor:
            return torch.full((2, 1), 0.5)

        def after(self, batch: Groups) -> torch.Tensor:
            return torch.full((2,), 2.0)

    from posttrain.core import Models

    method = posttrain.method("ppo", kl_coef=0.0, discount=0.5)
    ones = torch.ones(2, 1)
    batch = Groups(payload=Steps(ones[:, None], ones[:, None], ones), mask=ones.bool(), unit=torch.arange(2),
                   version=0 * ones, logp_behaviour=0 * ones, reward=torch.ones(2), rewards=ones,
                   finished=torch.tensor([False, True]), limit=1)
    prepared = method.prepare(Models(policy=None, critic=Critic()), batch)
    assert prepared.extra["value_target"][:, 0].tolist() == [2.0, 1.0]  # advantage + V
    assert float(prepared.credit[0]) > 0 > float(prepared.credit[1])


def test_environments_are_restored_in_mid_episode() -> None:
    one, other = Environments("Pendulum-v1", 2, 3), Environments("Pendulum-v1", 2, 99)
    actions = torch.rand(5, 2, 1) - 0.5
    for action in actions:
        one.step(action)
    other.seed = 3
    other.restore(json.loads(json.dumps(one.state())))
    assert torch.equal(one.obs, other.obs)
    assert torch.equal(one.step(actions[0]).next_obs, other.step(actions[0]).next_obs)


@pytest.mark.parametrize(("name", "given", "message"), [
    ("sac", {"task": "Pendulm-v1"}, "task = 'Pendulm-v1': not registered with Gymnasium; did you mean 'Pendulum-v1'"),
    ("ppo", {"task": "CartPole-v1", "policy": "gaussian"},
     "policy = 'gaussian': the actions of 'CartPole-v1' are numbered"),
    ("sft", {"task": "CartPole-v1"}, "method = 'sft': learns from given answers, and an environment gives none"),
    ("ppo", {"task": "CartPole-v1", "source": "replay"}, "source = 'replay': ppo learns from segments or episodes"),
    ("dqn", {"task": "Pendulum-v1"},
     "task = 'Pendulum-v1': its actions are numbers in a range, and dqn's policy, 'greedy', has numbered ones"),
    ("dqn", {"task": "CartPole-v1", "policy": "categorical"},
     "policy = 'categorical': dqn trains Q alone, so it acts by policy = 'greedy'"),
    ("ppo", {"task": "CartPole-v1", "policy": "greedy"}, "policy = 'greedy': ppo trains a policy of its own"),
    ("iql", {"task": "Pendulum-v1", "span": 3}, "span = 3: iql learns from transitions of one action"),
    ("sac", {"task": "Pendulum-v1", "replay": "prioritized"}, "replay = 'prioritized': sac does not weigh"),
    ("dqn", {"task": "CartPole-v1", "exploration": 0.1}, "exploration = 0.1: the actions of 'CartPole-v1' are"),
    ("td3", {"task": "Pendulum-v1", "exploration_memory": 1.0}, "exploration_memory = 1: must be below 1"),
    ("sac", {"task": "Pendulum-v1", "exploration_memory": 0.5}, "must be 0 where exploration = 0 adds no noise"),
    ("td3", {"task": "Pendulum-v1", "policy": "latent"}, "policy = 'latent': td3 trains no encoder"),
    ("mrq", {"task": "Pendulum-v1", "policy": "deterministic"}, "mrq trains an encoder, so it acts by policy"),
    ("mrq", {"task": "CartPole-v1"}, "task = 'CartPole-v1': its actions are numbered, and mrq's policy, 'latent'"),
    ("mrq", {"task": "Pendulum-v1", "normalize_obs": True}, "a policy of the kind 'latent' takes"),
    ("mrq", {"task": "bit_flipping:BitFlipping6-v0", "replay": "hindsight"}, "its actions are numbered, and mrq's"),
    ("td3", {"task": "Pendulum-v1", "dueling": True}, "dueling = true: needs a method with Q of numbered actions"),
    ("ppo", {"task": "CartPole-v1", "prompts": 3}, "no such option 'prompts'"),
    ("sac", {"task": "Pendulum-v1", "policy": "deterministic"}, "sac pays a policy for its entropy, and this kind has"),
    ("ppo", {"task": "broken_environments:Begins-v0"},
     "task: the environment 'Begins-v0' failed: reset(seed=…) raised TypeError: "),
    ("ppo", {"task": "broken_environments:Gone-v0"},
     "task: the environment 'Gone-v0' failed: making it raised AttributeError: "),
])
def test_what_cannot_be_is_one_line(name: str, given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        posttrain.train(name, **given, out=str(tmp_path / "run"))
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_environment_that_fails_is_told_as_its_own_failure(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        posttrain.train("ppo", task="broken_environments:Steps-v0", steps=1, out=str(tmp_path / "run"))
    assert str(caught.value) == ("task: the environment 'Steps-v0' failed: step(action) raised RuntimeError: motor 3 "
                                 "burnt")


def test_defaults_of_a_kind_are_options_that_exist() -> None:
    fields = set(ControlConfig.__dataclass_fields__)
    for name, found in method_files.methods().items():
        for given in catalog.make(name).defaults.get("control", {}):
            assert given in fields | {f.name for f in found.fields}, (name, given)


def test_trainer_closes_nothing_that_was_not_opened(tmp_path: Path) -> None:
    from contextlib import ExitStack

    config = ControlConfig(task="CartPole-v1", out=str(tmp_path / "run"), width=8)
    with ExitStack() as stack:
        trainer = Trainer(posttrain.method("ppo", kl_coef=0.0), replace(config, segment=8), Display(), False, stack)
        trainer.step()
    assert trainer.done == 1


def test_the_share_of_random_actions_falls_and_the_replay_ratio_holds() -> None:
    """CartPole's greedy policy at first takes one action in most states; the random half is even over both."""
    from posttrain.rollout.replayed import Exploration

    falling = Exploration(0, 0.0, 1.0, 0.2, 100)
    assert [falling.epsilon(step) for step in (0, 50, 100, 1000)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    method = posttrain.method("dqn")
    config = ControlConfig(task="CartPole-v1", policy="greedy", random_steps=10, replay_ratio=4, width=8, batch_size=4,
                           epsilon=0.5)
    setting = ControlSetting(method, config, None)
    for step in range(9):
        setting.source.next(step)
    assert setting.replay.count == 10 + 3  # rounds 0, 4 and 8
    setting.source.ratio = 1
    for step in range(9, 400):
        setting.source.next(step)
    held = setting.replay.columns
    rows = slice(13, setting.replay.count)
    with torch.no_grad():
        meant = setting.policy.mode(held["obs"][rows])
    share = float((held["action"][rows] != meant).double().mean())
    assert share == pytest.approx(0.25, abs=0.09)  # half of the random half; deviation 0.022
