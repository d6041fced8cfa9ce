"""Runs that begin with another's networks: what is taken, from where, what is refused, and resuming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import posttrain
from posttrain.cli.resolve import resolve
from posttrain.core.errors import UserError
from posttrain.train.config import ControlConfig
from posttrain.train.control import ControlSetting
from posttrain.train.display import Display
from posttrain.train.run import train

SMALL: dict[str, Any] = {"task": "Pendulum-v1", "width": 8, "steps": 3, "rounds": 10, "batch_size": 8,
                         "random_steps": 12, "eval_episodes": 1, "checkpoint_every": 2}


class StopAfter(Display):
    """Ctrl-C in the middle of step 3."""

    def step(self, step: int, metrics: Any, timing: Any) -> None:
        if step == 3:
            raise RuntimeError("killed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return posttrain.train("sac", **SMALL, normalize_obs=True, out=str(tmp_path_factory.mktemp("runs") / "sac")).folder


def killed(name: str, out: Path, **options: Any) -> None:
    plan = resolve(name, {**options, "out": str(out)})
    with pytest.raises(RuntimeError, match="killed"):
        train(plan.method, plan.config, StopAfter())


def begun(name: str = "sac", **options: Any) -> ControlSetting:
    """A setting with all its networks, before anything is learnt."""
    plan = resolve(name, {**SMALL, **options})
    assert isinstance(plan.config, ControlConfig)
    setting = ControlSetting(plan.method, plan.config, None)
    for needed in set(plan.method.needs) - {"policy"}:
        setting.networks()[needed]()
    return setting


def weights(setting: ControlSetting) -> dict[str, torch.Tensor]:
    return {f"{name}/{key}": x for name, net in setting.nets.built.items() for key, x in net.state_dict().items()}


def test_all_that_a_finished_run_kept_is_taken(finished: Path) -> None:
    setting = begun(start_from=str(finished), normalize_obs=True, seed=5)
    kept, found = load_file(finished / "networks/networks.safetensors"), weights(setting)
    assert {name.partition("/")[0] for name in kept} == {"policy", "q", "q_target", "temperature"}
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[name], kept[name]) for name in kept)
    assert not torch.equal(kept["q/body.weights.0"], kept["q_target/body.weights.0"])  # which follows slowly
    final = load_file(finished / "final/weights.safetensors")
    assert all(torch.equal(found[f"policy/{name}"], x) for name, x in final.items())
    assert setting.notes == (f"begins with policy, q, temperature of {finished}",)
    assert setting.facts["start"] == {"from": str(finished), "networks": ("policy", "q", "temperature")}


def test_the_reference_is_what_the_run_began_with(finished: Path) -> None:
    setting = begun(start_from=str(finished), normalize_obs=True)
    reference = setting.networks()["reference"]()
    kept = load_file(finished / "final/weights.safetensors")
    assert all(torch.equal(x, kept[name]) for name, x in reference.state_dict().items())
    assert not any(p.requires_grad for p in reference.parameters())


def test_what_is_not_kept_or_not_asked_for_begins_anew(finished: Path) -> None:
    fresh = weights(begun("iql", policy="squashed-gaussian", normalize_obs=True))
    setting = begun("iql", policy="squashed-gaussian", normalize_obs=True,
                    start_from=str(finished), start_networks=("policy",))
    found = weights(setting)
    kept = load_file(finished / "networks/networks.safetensors")
    for name, x in found.items():
        if "normalizer" in name:
            continue
        network = name.partition("/")[0]
        assert torch.equal(x, kept[name] if network == "policy" else fresh[name]), name
    assert setting.notes == (f"begins with policy of {finished}; critic, q anew",)


@pytest.mark.parametrize("name", ["sac", "dqn"])
def test_a_stopped_run_gives_what_its_checkpoint_has(name: str, tmp_path: Path) -> None:
    """After step 2 of 3; a run of two steps ends with the same networks."""
    options = {**SMALL, "task": "Pendulum-v1" if name == "sac" else "CartPole-v1"}
    killed(name, tmp_path / "stopped", **options)
    ended = posttrain.train(name, **{**options, "steps": 2}, lr_schedule="constant", out=str(tmp_path / "ended"))
    found = weights(begun(name, **{**options, "start_from": str(tmp_path / "stopped")}))
    kept = load_file(ended.folder / "networks/networks.safetensors")
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[key], kept[key]) for key in kept)


def test_a_checkpoint_has_what_rewards_and_observations_were_divided_by(tmp_path: Path) -> None:
    options = {"task": "CartPole-v1", "width": 8, "steps": 3, "segment": 32, "minibatches": 1, "epochs": 1,
               "eval_episodes": 1, "checkpoint_every": 2}
    killed("ppo", tmp_path / "stopped", **options)
    ended = posttrain.train("ppo", **{**options, "lr_schedule": "constant"}, out=str(tmp_path / "ended"))
    for folder, steps in ((tmp_path / "stopped", 2), (ended.folder, 3)):
        setting = begun("ppo", **{"random_steps": 0, **options, "start_from": str(folder)})
        assert setting.scale is not None and setting.normalizer is not None
        assert float(setting.scale.seen.count) == float(setting.normalizer.count) == 32 * steps


def test_a_saved_policy_is_enough(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "final", tmp_path / "policy")
    setting = begun(start_from=str(tmp_path / "policy"), normalize_obs=True)
    kept = load_file(finished / "final/weights.safetensors")
    assert all(torch.equal(setting.policy.state_dict()[name], x) for name, x in kept.items())
    assert setting.notes == (f"begins with policy of {tmp_path / 'policy'}; q, temperature anew",)


def test_a_killed_run_resumes_when_what_it_began_with_is_gone(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "begun")
    options = {**SMALL, "normalize_obs": True, "random_steps": 0, "policy_steps": 10, "seed": 3,
               "start_from": str(tmp_path / "begun")}
    posttrain.train("sac", **options, out=str(tmp_path / "whole"))
    killed("sac", tmp_path / "killed", **options)
    shutil.rmtree(tmp_path / "begun")
    posttrain.train("sac", out=str(tmp_path / "killed"), resume=True)
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "killed/metrics.jsonl").read_text()
    one, other = (load_file(tmp_path / run / "networks/networks.safetensors") for run in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    told = json.loads((tmp_path / "killed/config.json").read_text())
    assert told["start"]["networks"] == ["policy", "q", "temperature"]


def test_the_policy_itself_acts_before_the_first_batch(finished: Path) -> None:
    """Two steps by chance, five by the policy, of which a deterministic one repeats each."""
    setting = begun("td3", task="Pendulum-v1", random_steps=2, policy_steps=5, exploration=0.0)
    setting.source.next(0)
    held = setting.replay.columns
    assert setting.replay.count == 2 + 5 + 1
    with torch.no_grad():
        meant = setting.policy.mode(held["obs"][:8])
    assert torch.allclose(held["action"][2:8], meant[2:], rtol=0, atol=1e-6)
    assert not torch.isclose(held["action"][:2], meant[:2]).any()


@pytest.mark.parametrize(("given", "message"), [
    ({"width": 16}, "was made with width = 8, and this run has 16; they must be alike"),
    ({"policy": "gaussian"}, "was made with policy = 'squashed-gaussian', and this run has 'gaussian'"),
    ({"members": 3}, "was made with members = 2, and this run has 3"),
    ({"task": "MountainCarContinuous-v0"}, "was made with spaces = {'obs': 3"),
    ({"normalize_obs": False}, "was made with normalize_obs = True, and this run has False"),
    ({"start_networks": ("critic", "polcy")}, "start_networks = 'polcy': no such start networks; did you mean"),
    ({"start_networks": ("critic",)}, "keeps nothing that sac has"),
    ({"start_from": "nowhere"}, "start_from = 'nowhere': holds neither a run of control nor a policy"),
])
def test_what_cannot_be_is_told(given: dict[str, Any], message: str, finished: Path) -> None:
    with pytest.raises(UserError) as error:
        begun(**{"start_from": str(finished), "normalize_obs": True, **given})
    assert message in str(error.value)


def test_a_network_that_was_not_kept_cannot_be_asked_for(finished: Path) -> None:
    with pytest.raises(UserError, match="keeps no critic, only policy, q, temperature"):
        begun("iql", policy="squashed-gaussian", normalize_obs=True, start_from=str(finished),
              start_networks=("critic",))


def test_a_run_without_a_checkpoint_has_nothing(tmp_path: Path) -> None:
    killed("sac", tmp_path / "early", **{**SMALL, "checkpoint_every": 100})
    with pytest.raises(UserError, match="stopped before its first checkpoint"):
        begun(start_from=str(tmp_path / "early"))


def test_what_shapes_the_networks_is_inherited_unless_it_is_asked_for(finished: Path) -> None:
    plan = resolve("iql", {"task": "Pendulum-v1", "start_from": str(finished)})
    assert isinstance(plan.config, ControlConfig)
    assert (plan.config.policy, plan.config.width, plan.config.normalize_obs) == ("squashed-gaussian", 8, True)
    plan = resolve("redq", {"task": "Pendulum-v1", "start_from": str(finished)})
    assert plan.method.members == 2  # type: ignore[attr-defined]  # where its own default is ten
    plan = resolve("redq", {"task": "Pendulum-v1", "start_from": str(finished), "start_networks": ("policy",)})
    assert plan.method.members == 10  # type: ignore[attr-defined]  # there is no Q to fit
    assert resolve("sac", {"task": "Pendulum-v1", "start_from": str(finished), "width": 16}).config.width == 16  # type: ignore[attr-defined]
