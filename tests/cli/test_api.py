"""`import posttrain`: light, and `train` stays a function although a subpackage has its name."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import posttrain
from posttrain.core.errors import UserError


def test_train_is_callable_before_and_after_the_subpackage_is_imported() -> None:
    code = ("import sys, posttrain\n"
            "assert 'torch' not in sys.modules\n"
            "assert callable(posttrain.train)\n"
            "from posttrain.train.config import Config\n"
            "import posttrain.train.config as again\n"
            "assert again.Config is Config\n"
            "assert callable(posttrain.train)\n"
            "assert posttrain.__version__ and not hasattr(posttrain, 'nothing')\n"
            "assert 'torch' not in sys.modules\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_method_is_a_frozen_record() -> None:
    method = posttrain.method("grpo", clip_high=0.3)
    assert method == posttrain.method("GRPO", clip_high=0.3)
    assert dataclasses.asdict(method)["clip_high"] == 0.3
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.epochs = 2  # type: ignore[misc]


def test_train_from_python(tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = posttrain.train("grpo", policy=str(tiny_model), task="addition", steps=1, prompts=2, samples=2,
                          threads=1, max_new_tokens=4, eval_problems=4, clip_high=0.3,
                          out=str(tmp_path / "run"))
    assert run.folder == tmp_path / "run"
    assert run.summary["steps"] == 1
    assert "step=" not in capfd.readouterr().out  # silent unless asked
    with pytest.raises(UserError, match="complete"):
        posttrain.train("grpo", out=str(tmp_path / "run"), resume=True)


@pytest.mark.parametrize(("options", "line"), [
    ({"stepz": 1}, "no such option 'stepz'; did you mean 'steps'"),
    ({"clip_low": 2.0}, "clip_low = 2.0: must be ≥ 0 and ≤ 1"),
    ({"resume": True}, "resume needs the run's folder"),
])
def test_wrong_options(options: dict[str, object], line: str) -> None:
    with pytest.raises(UserError, match=line):
        posttrain.train("grpo", **options)  # type: ignore[arg-type]
