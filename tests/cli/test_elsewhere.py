"""A run on problems and a verifier of the user's own is evaluated and resumed from another folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain.cli.main import main

REWARDS = """
def score(completion, answer):
    return float(len(completion) % 2)
"""


def test_a_run_on_own_problems_goes_on_elsewhere(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    problems = (json.dumps({"prompt": f"{i}+1=", "answer": f"{i + 1}"}) for i in range(30))
    (tmp_path / "problems.jsonl").write_text("\n".join(problems) + "\n", encoding="utf-8")
    (tmp_path / "rewards.py").write_text(REWARDS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    told = ["train", "grpo", "--policy", str(tiny_model), "--task", "problems.jsonl", "--verifier", "rewards.py:score",
            "--steps", "2", "--prompts", "2", "--samples", "2", "--max-new-tokens", "4", "--threads", "1",
            "--checkpoint-every", "1", "--eval-every", "1", "--out", "part"]
    with monkeypatch.context() as broken:
        broken.setattr("posttrain.train.run.Trainer._evaluate", lambda self, when: 1 / 0 if when == "step 1" else None)
        assert main(told) == 1
    monkeypatch.chdir("/")
    assert main(["train", "--resume", str(tmp_path / "part")]) == 0
    assert main(["eval", str(tmp_path / "part"), "--json"]) == 0
    assert len((tmp_path / "part/metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    capsys.readouterr()
