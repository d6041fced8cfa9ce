"""Whole runs that train picture policies: what is written, learnt, refused and resumed."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("sklearn")

import posttrain
from posttrain.cli.resolve import resolve
from posttrain.core import catalog, method_files
from posttrain.core.errors import UserError
from posttrain.core.method_files import methods
from posttrain.policies import digits
from posttrain.train.config import PictureConfig
from posttrain.train.display import Display
from posttrain.train.run import train


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose models have learnt little, but from the real digits."""
    home = tmp_path_factory.mktemp("home")
    models = home / "models"
    models.mkdir()
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("POSTTRAIN_HOME", str(home))
    for name in digits.UPDATES:
        digits.make_policy(name, models / name, lambda line: None, updates=60)
    monkeypatch.undo()
    digits.make_judge(models / digits.CLASSIFIER, lambda line: None, updates=150)
    return home


@pytest.fixture(autouse=True)
def cached(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTTRAIN_HOME", str(home))


SMALL = {"prompts": 2, "samples": 3, "denoising_steps": 3, "eval_pictures": 20, "steps": 4, "checkpoint_every": 2}


class Listening(Display):
    """Keeps what is said of the objective; Ctrl-C in the middle of step `stop`."""

    def __init__(self, stop: int = 0) -> None:
        self.stop, self.said = stop, dict[str, str]()

    def objective(self, lines: Any) -> None:
        self.said = dict(lines)

    def step(self, step: int, metrics: Any, timing: Any) -> None:
        if step == self.stop:
            raise RuntimeError("killed")


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "policy"), [("grpo", "digits-flow"), ("ppo", "digits-ddpm")])
def test_a_killed_run_resumes_to_the_same_end(name: str, policy: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL, "policy": policy, "epochs": 2}
    posttrain.train(name, **options, out=str(tmp_path / "whole"))
    plan = resolve(name, {**options, "out": str(tmp_path / "killed")})
    with pytest.raises(RuntimeError, match="killed"):
        train(plan.method, plan.config, Listening(stop=3))
    posttrain.train(name, out=str(tmp_path / "killed"), resume=True)
    for file in ("metrics.jsonl", "evaluations.jsonl"):
        assert text(tmp_path / "whole" / file) == text(tmp_path / "killed" / file)
    whole, killed = (load_file(tmp_path / run / "final/weights.safetensors") for run in ("whole", "killed"))
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    for when in ("before", "after"):
        assert (tmp_path / "whole/pictures" / f"{when}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("name", ["grpo", "rloo", "gspo", "tba", "dpo", "maxrl", "cispo", "reinforce", "ppo", "ddpo",
                                  "dancegrpo", "tempflow-grpo", "b2-diffurl", "diffusion-dpo", "vard", "rlcm",
                                  "find-initial-noise", "seppo"])
def test_methods_run(name: str, tmp_path: Path) -> None:
    """Those of language models, unchanged, and those whose source differs."""
    own = {"value_alone": 0} if name == "vard" else {}
    run = posttrain.train(name, **{**SMALL, "steps": 2, **own}, task="digits/symmetry", out=str(tmp_path / name))
    rows = [json.loads(line) for line in text(run.folder / "metrics.jsonl").splitlines()]
    assert rows[0].get("logp_gap", 0.0) < 1e-5  # where steps are scored at all
    assert rows[-1]["grad_norm"] > 0
    assert run.summary["measure"] == "picture_reward"


def test_reward_rises(tmp_path: Path) -> None:
    run = posttrain.train("grpo", task="digits/brightness", steps=12, samples=8, denoising_steps=5, lr=2e-3,
                          kl_coef=0.0, eval_pictures=40, out=str(tmp_path / "run"))
    assert run.summary["gain_interval"][0] > 0
    assert 0 < run.summary["after"]["picture_reward"] < 1


def test_the_policy_declares_its_clip_range(tmp_path: Path) -> None:
    assert resolve("grpo", {"policy": "digits-flow"}).method.clip_low == 1e-4  # type: ignore[attr-defined]
    assert resolve("grpo", {"policy": "digits-flow", "clip_low": 0.01}).method.clip_low == 0.01  # type: ignore[attr-defined]
    assert resolve("grpo", {"task": "CartPole-v1"}).method.clip_low == 0.2  # type: ignore[attr-defined]
    assert resolve("flow-grpo", {}).config.policy == "digits-flow"  # a method of pictures alone asks for no more
    assert resolve("rlcm", {"steps": 3}).config.policy == "digits-consistency"
    plan = resolve("grpo", {**SMALL, "steps": 1, "policy": "digits-flow", "clip_low": 0.01, "out": str(tmp_path / "r")})
    listening = Listening()
    train(plan.method, plan.config, listening)
    assert listening.said["clip unit"].endswith("clip_low = 0.01, clip_high = 0.0001 (this policy’s default)")


@pytest.mark.parametrize(("name", "given", "message"), [
    ("grpo", {"task": "digits/clasifier"}, "task = 'digits/clasifier': no such task; did you mean 'digits/classifier'"),
    ("grpo", {"spread": 0.0}, "spread = 0: must be > 0"),
    ("grpo", {"policy": "digits-ddpm", "spread": 2.0}, "spread = 2: must be > 0, so that steps are decisions, and ≤ 1"),
    ("grpo", {"policy": "digits-ddpm", "denoising_steps": 1}, "denoising_steps = 1: must be ≥ 2"),
    ("rlcm", {"policy": "digits-consistency", "denoising_steps": 1},
     "denoising_steps = 1: must be ≥ 2, the last step of 'digits-consistency' decides nothing"),
    ("grpo", {"policy": "digits-noise", "spread": 0.5}, "spread = 0.5: 'digits-noise' has none"),
    ("awm", {"policy": "digits-noise", **SMALL}, 
     "method = 'awm': asks how well the net tells pictures from noise, and 'digits-noise' trains the first noise "
     "alone"),
    ("grpo", {"given": 3}, "given = 3: must be 0, 'grpo' learns from samples alone"),
    ("seppo", {"given": 0}, "given = 0: must be ≥ 1, 'seppo' learns from samples beside real pictures"),
    ("grpo", {"drawn": "one", "interval": 0.5}, "interval = 0.5: with drawn = 'one' a group has one step"),
    ("flow-grpo", {"policy": "tiny-char", "task": "char-addition"},
     "method = 'flow-grpo': trains pictures, and these options are of language"),
    ("sft", {}, "method = 'sft': learns from demonstrations, and a picture policy has only its own samples"),
])
def test_what_cannot_be_is_one_line(name: str, given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        posttrain.train(name, **{"policy": "digits-flow", **given}, out=str(tmp_path / "run"))
    assert message in str(caught.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_methods_that_ask_for_a_fit_say_so() -> None:
    of_pictures = {name: method for name in methods() if "pictures" in (method := catalog.make(name)).kinds}
    asks = {name for name, method in of_pictures.items() if ".fit(" in inspect.getsource(type(method))}
    assert asks == {name for name, method in of_pictures.items() if method.fits} >= {"awm", "diffusion-dpo"}


def test_defaults_of_the_kind_are_options_that_exist() -> None:
    fields = set(PictureConfig.__dataclass_fields__)
    for name, found in method_files.methods().items():
        for given in catalog.make(name).defaults.get("pictures", {}):
            assert given in fields | {f.name for f in found.fields}, (name, given)
