"""Flags are what the declarations say, and a wrong one is refused in one line."""

from __future__ import annotations

import re
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.cli.options import Parser
from posttrain.cli.train import _method_name, _resumed_folder, make_parser
from posttrain.core import catalog, method_files
from posttrain.core.errors import UserError
from posttrain.core.source import Field, parse
from posttrain.core.types import Count, Fraction


def read(*words: str) -> dict[str, Any]:
    return make_parser(catalog.find("grpo")).read(words)[1]


@pytest.mark.parametrize(("words", "expected"), [
    (["--steps", "20"], {"steps": 20}),
    (["--steps=1e3"], {"steps": 1000}),
    (["--clip-high", "0.3"], {"clip_high": 0.3}),
    (["--clip_high", "0.3"], {"clip_high": 0.3}),
    (["--clip-high", "-1e-3"], {"clip_high": -1e-3}),  # its range is the dataclass's to refuse
    (["--lr", ".5"], {"lr": 0.5}),
    (["--betas", "0.8,0.9"], {"betas": (0.8, 0.9)}),
    (["--stop", r"\n\n", "--stop", "a,b"], {"stop": ("\n\n", "a,b")}),
    (["--out", "-1x"], {"out": "-1x"}),
    (["--lr-schedule", "cosine", "--policy", "a/b"], {"policy": "a/b", "lr_schedule": "cosine"}),
    ([], {}),
])
def test_read(words: list[str], expected: dict[str, Any]) -> None:
    assert read("grpo", *words) == expected
    assert read(*words, "grpo") == expected


@pytest.mark.parametrize(("words", "line"), [
    (["--clip-hgih", "0.3"], "no such option --clip-hgih; did you mean --clip-high?"),
    (["--clip", "0.3"], "no such option --clip; did you mean --clip-low?"),  # no abbreviations
    (["--steps", "many"], "steps = 'many': must be a whole number ≥ 1"),
    (["--steps", "1.5"], "steps = '1.5': must be a whole number ≥ 1"),
    (["--steps", "inf"], "steps = 'inf': must be a whole number ≥ 1"),
    (["--betas", "0.9"], "betas = '0.9': must be 2 numbers, as in 1,2"),
    (["--lr-schedule", "cosin"], "lr_schedule = 'cosin': must be one of linear, cosine, constant; "
                                 "did you mean 'cosine'?"),
    (["--steps"], "argument --steps: expected one argument"),
    (["--steps", "--seed", "1"], "argument --steps: expected one argument"),
    (["grpo", "extra"], "unrecognized arguments: extra"),
])
def test_refuse(words: list[str], line: str) -> None:
    with pytest.raises(UserError, match=re.escape(line)) as caught:
        read(*words)
    assert "\n" not in str(caught.value)


def test_every_option_of_every_method_is_offered_with_help() -> None:
    for name in method_files.methods():
        text = make_parser(catalog.find(name)).format_help()
        for field in catalog.find(name).fields:
            assert f"{field.flag} " in text
        assert f"posttrain train {name}" in text


@pytest.mark.parametrize(("words", "method", "folder"), [
    (["grpo", "--steps", "3"], "grpo", None),
    (["--steps", "3", "grpo"], "grpo", None),
    (["--steps=3", "grpo"], "grpo", None),
    (["--clip-high", "-1", "grpo"], "grpo", None),
    (["--resume", "runs/x"], "", "runs/x"),
    (["--resume=runs/x"], "", "runs/x"),
    (["--resume", "--out", "runs/x"], "", "runs/x"),
    (["grpo", "--out", "runs/x", "--resume"], "grpo", "runs/x"),
    (["grpo", "--resume"], "grpo", ""),
    (["--help", "grpo"], "grpo", None),
])
def test_method_and_folder_before_parsing(words: list[str], method: str, folder: str | None) -> None:
    assert _method_name(words) == method
    assert _resumed_folder(words) == folder


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_numbers_come_through(x: float, n: int) -> None:
    parser = Parser("test", "", [])
    parser.declare("numbers", [Field("x", float, 0.0, ""), Field("n", int, 0, "")])
    assert parser.read(["--x", repr(x), "--n", str(n)])[1] == {"x": x, "n": n}


@pytest.mark.parametrize(("hint", "text", "value"), [
    (bool, "true", True), (bool, "False", False), (float | None, "none", None), (float | None, "2", 2.0),
    (Literal[1, 2], "2", 2), (Fraction, "0.5", 0.5), (Count, "7", 7), (str, "007", "007"),
    (None, "[1, 2]", [1, 2]),
])
def test_parse(hint: Any, text: str, value: Any) -> None:
    found = parse(Field("f", hint, None, ""), text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("hint", "text"), [
    (bool, "1"), (Literal[1, 2], "3"), (None, "import os"), (int, "nan")])
def test_parse_refuses(hint: Any, text: str) -> None:
    with pytest.raises(UserError, match=f"f = '{text}': must be "):
        parse(Field("f", hint, None, ""), text)


def test_a_curriculum_s_options_stand_beside_the_method_s() -> None:
    found = catalog.find_curriculum("knapsack-rl")
    parser = make_parser(catalog.find("grpo"), found)
    assert "hyperparameters of the curriculum knapsack-rl" in parser.format_help()
    given = parser.read(["grpo", "--curriculum", "knapsack-rl", "--pool", "64", "--clip-high", "0.3"])[1]
    assert given == {"curriculum": "knapsack-rl", "pool": 64, "clip_high": 0.3}
    with pytest.raises(UserError, match="no such option --pool"):
        make_parser(catalog.find("grpo")).read(["grpo", "--pool", "64"])


@pytest.mark.parametrize(("name", "parts"), [
    ("sec", ["p(c)  = exp(Q(c) / τ)", "arm_temperature", "posttrain train grpo --curriculum sec"]),
    ("clip-cov-kl-cov", ["posttrain/methods/groups/clip_cov.py", "posttrain/methods/groups/kl_cov.py"]),
])
def test_explain_tells_of_curricula_and_of_papers_with_two_methods(
        name: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from posttrain.cli import explain

    assert explain.run([name]) == 0
    out = capsys.readouterr().out
    assert [part for part in parts if part not in out] == []


def test_help_of_a_kind_has_the_defaults_that_hold_there() -> None:
    shown = make_parser(catalog.find("ppo"), None, "control").declared
    assert (shown["epochs"].default, shown["kl_coef"].default, shown["normalize_obs"].default) == (10, 0, True)
    assert shown["kl_coef"].comment == "β, reward per nat"  # its source is of another default
    assert make_parser(catalog.find("ppo")).declared["epochs"].default == 4


def test_defaults_of_a_kind_are_read_as_the_class_states_them() -> None:
    found = {name: dict(method.defaults("control")) for name, method in method_files.methods().items()}
    assert sum(map(bool, found.values())) >= 3
    for name, told in found.items():
        if told:
            assert told == dict(catalog.make(name).defaults["control"])


def test_help_without_a_task_is_of_the_kind_that_the_method_trains() -> None:
    assert "width" in make_parser(catalog.find("sac")).declared
    assert "prompts" in make_parser(catalog.find("ppo")).declared
    for name, method in method_files.methods().items():
        made = catalog.make(name)
        assert method.home == (made.kinds or ("control" if made.learns_from == "transitions" else "language",))[0]
