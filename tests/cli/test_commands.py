"""Every command in this process: what it prints, and how it fails."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import posttrain
from posttrain.cli import doctor, methods
from posttrain.cli.main import COMMANDS, main
from posttrain.core import catalog
from posttrain.core.catalog import Entry
from posttrain.nets.products import products


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    told = capsys.readouterr()
    return code, told.out, told.err


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    assert all(f"  {name} " in out for name in COMMANDS)
    assert run(capsys, "--help") == (0, out, "")
    assert run(capsys, "--version") == (0, f"posttrain {posttrain.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, err = run(capsys, command, "--help")
    assert (code, err) == (0, "")
    assert f"usage: posttrain {command}" in out
    assert f"  posttrain {command}" in out.partition("examples:")[2]
    assert max(map(len, out.splitlines())) <= 110


@pytest.mark.parametrize(("words", "line"), [
    (["trian"], "posttrain: no such command 'trian'; did you mean 'train'?"),
    (["qqqq"], "posttrain: no such command 'qqqq'; allowed: train, eval, "),
    (["train"], "posttrain train: METHOD is missing"),
    (["train", "grop"], "posttrain train: method = 'grop': no such method; did you mean 'grpo'?"),
    (["train", "grpo", "--clip-hgih", "1"],
     "posttrain train: no such option --clip-hgih; did you mean --clip-high?"),
    (["train", "grpo", "--steps", "0"], "posttrain train: steps = 0: must be ≥ 1"),
    (["train", "grpo", "--task", "additoin"], "posttrain train: task = 'additoin'"),
    (["train", "--resume", "nowhere"], "posttrain train: nowhere: no run here"),
    (["train", "--resume"], "posttrain train: resume needs the run's folder"),
    (["methods", "--level", "7"], "posttrain methods: level = '7': must be one of 0, 1, 2, 3"),
    (["methods", "--josn"], "posttrain methods: no such option --josn; did you mean --json?"),
    (["explain"], "posttrain explain: the following arguments are required: NAME"),
    (["explain", "grop"], "posttrain explain: name = 'grop': neither a method nor a catalogued paper; "),
    (["fetch", "smollm"], "posttrain fetch: "),
    (["eval", "nowhere"], "posttrain eval: task is missing"),
    (["export", "nowhere", "there"], "posttrain export: "),
    (["data", "make", "Pendulum-v1"], "posttrain data: out is missing: say which folder to make"),
    (["data", "make", "Pendulum-v1", "--kind", "expert", "--out", "there"],
     "posttrain data: policy = '': kind 'expert' needs --policy"),
    (["data", "make", "Pendulum-v1", "--kind", "expret", "--out", "there"],
     "posttrain data: kind = 'expret': must be one of random, medium, replay, expert, scripted; did you mean 'exp"),
    (["data", "mkae", "Pendulum-v1"], "posttrain data: "),
])
def test_wrong_use_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], line: str) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_a_bug_is_one_line_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: Any) -> int:
        raise KeyError("two\nlines")

    monkeypatch.setattr(methods, "run", broken)
    code, _, err = run(capsys, "methods")
    assert code == 1
    assert err == ("posttrain methods: KeyError: 'two\\nlines' (this is a bug in posttrain; "
                   "POSTTRAIN_DEBUG=1 shows where)\n")
    monkeypatch.setenv("POSTTRAIN_DEBUG", "1")
    assert "Traceback" in run(capsys, "methods")[2]


def test_methods_lists_all_and_filters(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split("\t") for line in run(capsys, "methods")[1].splitlines()]
    assert len(rows) == len(catalog.entries()) >= 440
    assert {len(row) for row in rows} == {6}
    found = json.loads(run(capsys, "methods", "--json", "--verdict", "system")[1])
    assert {row["verdict"] for row in found} == {"system"}
    found = json.loads(run(capsys, "methods", "--json", "--search", "advantage MOMENTUM")[1])
    assert [row["name"] for row in found] == ["aapo"]
    levels = {row["level"] for row in json.loads(run(capsys, "methods", "--json", "--level", "0")[1])}
    assert levels == {0}


def test_table_fits() -> None:
    for width in (80, 120, 200):
        assert max(map(len, methods.table(catalog.entries(), width))) <= width


def test_tree() -> None:
    def row(name: str, parent: str) -> Entry:
        return Entry(name, name.upper(), "core", "", "", "", level=1, parent=parent, file="x.py")

    rows = [row("grpo", "ppo"), row("gspo", "grpo"), row("dr-grpo", "grpo"), row("deep", "dr_grpo"),
            row("dpo", "")]
    assert methods.tree(rows) == [
        "dpo  DPO · 1 runs",
        "[ppo]",
        "└─ grpo  GRPO · 1 runs",
        "   ├─ dr-grpo  DR-GRPO · 1 runs",
        "   │  └─ deep  DEEP · 1 runs",
        "   └─ gspo  GSPO · 1 runs",
    ]


def test_explain_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "explain", "grpo")[1]
    for part in (*map(str.strip, catalog.find("grpo").explanation.equation.splitlines()), "against ppo",
                 "ε_low", "clip_high", "paper sec. 4.2", "deviations", "https://arxiv.org/abs/2402.03300",
                 "posttrain/methods/groups/grpo.py", "posttrain train grpo --policy"):
        assert part in out
    assert max(map(len, out.splitlines())) <= 120


def test_explain_shows_what_differs_from_the_parent(capsys: pytest.CaptureFixture[str]) -> None:
    child, _, parent = run(capsys, "explain", "gspo")[1].partition("the equation of grpo")
    told = [line for text in (child, parent) for line in text.splitlines() if re.match(r"  [-+~ ] \S+ += ", line)]
    assert [line[:5].strip() for line in told] == ["Â", "+ s", "~ L", "Â", "- ρ", "~ L"]
    assert "what is new, against grpo\n  s_i is a geometric mean over tokens" in child
    assert "hyperparameters: clip_low 0.2 → 0.0003, clip_high 0.2 → 0.0004, no kl_coef" in child
    assert parent.startswith("   (+ new, ~ changed, - gone)\n")


def test_explain_a_method_without_a_parent_marks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "explain", "reinforce")[1]
    assert all(f"\n{line}\n" in out for line in catalog.find("reinforce").explanation.equation.splitlines())
    assert "the equation of" not in out


def test_explain_a_paper_that_is_not_built(capsys: pytest.CaptureFixture[str]) -> None:
    row = next(e for e in catalog.entries() if not e.file and e.level == 0)
    out = run(capsys, "explain", row.name)[1]
    assert row.idea[:40] in out
    assert "0 planned: not built yet" in out


def test_explain_a_paper_that_is_only_read(capsys: pytest.CaptureFixture[str]) -> None:
    row = next(e for e in catalog.entries() if e.verdict == "reference" and not e.file)
    assert "not to be built" in run(capsys, "explain", row.name)[1]


def test_doctor(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTTRAIN_HOME", str(tmp_path / "not" / "there"))
    code, out, err = run(capsys, "doctor", "--json")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert facts["machine"]["cores"] >= 1
    assert facts["speed"]["fp32_gflops"] > 0.1
    assert facts["models"]["smollm2-135m"] == ""
    text = {label: line for lines in doctor.report(facts).values() for label, line in lines}
    assert text["smollm2-135m"] == "not here; posttrain fetch smollm2-135m"
    serving = products()
    assert text["products of bf16"] == f"by {'oneDNN' if serving is None else serving.by}"
    facts["extras"]["math"] = ""
    text = {label: line for lines in doctor.report(facts).values() for label, line in lines}
    assert text["math"].endswith("pip install 'posttrain[math]'")


def test_a_run_and_what_follows_it(capsys: pytest.CaptureFixture[str], tiny_run: list[str], tmp_path: Path
                                   ) -> None:
    folder = tmp_path / "run"
    code, out, err = run(capsys, "train", "grpo", *tiny_run, "--steps", "2", "--clip_high", "0.3")
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines() if "step=" in line] == ["step=1/2", "step=2/2"]
    stored = json.loads((folder / "config.json").read_text())
    assert stored["hyperparameters"]["clip_high"] == 0.3
    assert stored["config"]["out"] == str(folder)
    code, out, err = run(capsys, "train", "grpo", *tiny_run)
    assert (code, "step=" in out, err.count("\n")) == (2, False, 1)
    assert str(folder) in err
    target = tmp_path / "exported"
    assert run(capsys, "export", str(folder), str(target), "--precision", "fp32") == (0, f"{target}\n", "")
