"""The catalogue says what the files say: checked by hand, and against the imported classes."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from zipfile import ZipFile

import pytest

from posttrain.core import catalog, levels, method_files, source
from posttrain.core.errors import UserError
from posttrain.core.method_files import plain_name
from posttrain.train.kinds import KINDS

GRPO = method_files.PACKAGE / "methods" / "groups" / "grpo.py"

SMALL = '''"""Half: GRPO with half the clip range.

    L = half of it

    z = 2

What is new.

Deviations: none
that matter.
"""
# a comment

from posttrain.methods.groups.grpo import GRPO


class Half(GRPO):
    """Two
    lines."""

    clip_low: Fraction = 0.1  # ε_low, per token; half of PPO's

    sharpness: float | None = None  # κ


def quarter(*, clip: Fraction = 0.05,  # ε; guessed
            name: str = "x"):
    return Half(clip_low=clip)
'''


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "half.py"
    path.write_text(SMALL, encoding="utf-8")
    return path


def test_hyperparameters_of_grpo() -> None:
    fields = {f.name: f for f in catalog.find("grpo").fields}
    assert list(fields) == ["clip_low", "clip_high", "kl_coef", "epochs", "minibatches"]
    low = fields["clip_low"]
    assert (low.symbol, low.unit, low.default) == ("ε_low", "per token", 0.2)
    assert low.allowed == "number ≥ 0 and ≤ 1"
    assert low.source == "PPO's default, the paper gives none"
    assert fields["epochs"].symbol == "μ"
    assert fields["minibatches"].symbol == ""
    assert [f.name for f in catalog.find("grpo").own_fields] == ["clip_low", "clip_high", "kl_coef"]


def test_citation_and_text_of_grpo() -> None:
    found = catalog.find("grpo")
    assert found.citation == ("2402.03300", "Shao et al., 2024", "ppo")
    assert found.citation.link == "https://arxiv.org/abs/2402.03300"
    told = found.explanation
    assert told.summary == "GRPO: the group's own mean reward is the baseline, so no critic is trained."
    assert len(told.equation.splitlines()) == 3
    assert told.equation.startswith("    Â_i")
    assert told.new.startswith("PPO's clipped surrogate")
    assert told.deviations.startswith("ε is not stated")


def test_inheritance_across_files(small: Path) -> None:
    fields = {f.name: f for f in method_files.MethodFile(small, "Half").fields}
    # Its own two first, then GRPO's other two, then Method's two; its own default wins.
    assert list(fields) == ["clip_low", "sharpness", "clip_high", "kl_coef", "epochs", "minibatches"]
    assert fields["clip_low"].default == 0.1
    assert fields["sharpness"].allowed == "number, or none"


def test_function_of_settings(small: Path) -> None:
    clip, name = method_files.MethodFile(small, "quarter").fields
    assert (clip.name, clip.default, clip.symbol, clip.source) == ("clip", 0.05, "ε", "guessed")
    assert (name.default, name.comment) == ("x", "")


def test_docstring_parts(small: Path) -> None:
    told = method_files.MethodFile(small, "Half").explanation
    assert told.equation == "    L = half of it\n\n    z = 2"
    assert told.new == "What is new."
    assert told.deviations == "none\nthat matter."


def test_code_lines(small: Path) -> None:
    # import, class, clip_low, sharpness, def (two lines), return: 7, without docstrings, blanks and comments.
    assert source.code_lines(small) == 7


@pytest.mark.parametrize("name", method_files.methods())
def test_files_agree_with_their_classes(name: str) -> None:
    found, made = catalog.find(name), catalog.load(name)
    if isinstance(made, type) and dataclasses.is_dataclass(made):
        read = {f.name: f.default for f in found.fields}
        assert read == {f.name: f.default for f in dataclasses.fields(made)}
    assert found.explanation.equation
    assert all(f.comment and f.hint is not None for f in found.fields)


def test_stems_are_unique_and_every_method_file_defines_its_method() -> None:
    files = [p for p in (method_files.PACKAGE / "methods").glob("*/*.py") if not p.stem.startswith("_")]
    assert len(method_files.methods()) == len(files)


def test_no_hyperparameter_hides_an_option() -> None:
    options = {f.name for kind in KINDS.values() for f in dataclasses.fields(kind.config)}
    for found in method_files.built().values():
        assert not options & {f.name for f in found.fields}, found.name


def test_no_hyperparameter_of_a_curriculum_is_one_of_a_method() -> None:
    of_methods = {f.name for found in method_files.methods().values() for f in found.fields}
    for found in method_files.curricula().values():
        assert not of_methods & {f.name for f in found.fields}, found.name


def test_curricula_are_found_and_listed() -> None:
    files = [p for p in (method_files.PACKAGE / "data" / "curriculum").glob("*.py") if not p.stem.startswith("_")]
    assert len(method_files.curricula()) == len(files) >= 6
    row = catalog.entry("knapsack_rl")
    assert (row.name, row.shelf, row.level) == ("knapsack-rl", "curriculum", 2)
    assert row.file == "posttrain/data/curriculum/knapsack_rl.py"
    assert row in catalog.entries()
    assert [f.name for f in catalog.find_curriculum("knapsack-rl").own_fields][-1] == "pool"
    assert not set(method_files.curricula()) & set(method_files.methods())
    with pytest.raises(UserError, match="method = 'sec': a curriculum, which a method takes as --curriculum sec"):
        catalog.find("sec")
    with pytest.raises(UserError, match="curriculum = 'grpo': no such curriculum"):
        catalog.find_curriculum("grpo")
    with pytest.raises(UserError, match=r"hyperparameter of sec = 'arm_rat'.* did you mean 'arm_rate'"):
        catalog.make_curriculum("sec", arm_rat=1)


def test_a_paper_of_two_methods_stands_where_the_lesser_one_does(tmp_path: Path) -> None:
    tests = tmp_path / "tests" / "methods" / "groups"
    tests.mkdir(parents=True)
    (tmp_path / levels.CONFORMANCE).touch()
    (tests / "test_clip_cov.py").touch()
    assert levels.compute(tmp_path)["clip-cov-kl-cov"] == {"level": 1}
    (tests / "test_kl_cov.py").touch()
    assert levels.compute(tmp_path)["clip-cov-kl-cov"] == {"level": 2}
    row = catalog.entry("clip-cov-kl-cov")
    assert row.file == "posttrain/methods/groups/clip_cov.py, posttrain/methods/groups/kl_cov.py"
    assert (row.level, row.verdict, row.shelf) == (2, "core", "groups")
    assert row in catalog.entries()
    with pytest.raises(UserError, match="the paper has several, clip-cov, kl-cov; name one"):
        catalog.find("clip-cov-kl-cov")


def test_papers_hold_our_own_words_only() -> None:
    rows = [json.loads(line) for line in catalog.PAPERS.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len({r["slug"] for r in rows}) == 440
    assert {key for r in rows for key in r} == {"slug", "title", "verdict", "family", "kind", "idea"}
    assert {r["verdict"] for r in rows} == {"core", "recipe", "system", "reference", "out"}
    assert all(len(r["idea"]) < 400 for r in rows)


def test_levels_follow_from_files(tmp_path: Path) -> None:
    tests = tmp_path / "tests" / "methods" / "groups"
    tests.mkdir(parents=True)
    (tests / "test_grpo.py").touch()
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    assert levels.compute(tmp_path) == {}  # no conformance suite: nothing is shown to run
    (tmp_path / levels.CONFORMANCE).touch()
    assert levels.compute(tmp_path)["grpo"] == {"level": 2}
    (evidence / "grpo.json").write_text('{"seeds": 5}')
    assert levels.compute(tmp_path)["grpo"] == {"level": 2}  # no verdict in it
    (evidence / "grpo.json").write_text('{"verdict": "inconclusive"}')
    assert levels.compute(tmp_path)["grpo"] == {"level": 3, "evidence": "inconclusive"}
    assert "sec" not in levels.compute(tmp_path)  # their suite is not there
    (tmp_path / "tests" / "test_every_curriculum.py").touch()
    assert levels.compute(tmp_path)["sec"] == {"level": 1}
    (tests / "test_grpo.py").unlink()
    assert levels.compute(tmp_path)["grpo"] == {"level": 1}  # evidence does not stand in for the test


def test_a_wheel_knows_the_levels(tmp_path: Path) -> None:
    """Nobody types or commits them: a checkout computes them, and building a wheel writes them into it."""
    from hatchling.builders.wheel import WheelBuilder

    [wheel] = WheelBuilder(str(method_files.PACKAGE.parent)).build(directory=str(tmp_path), versions=["standard"])
    with ZipFile(wheel) as held:
        told = json.loads(held.read("posttrain/core/levels.json"))
    assert told == levels.compute(method_files.PACKAGE.parent)
    assert told["grpo"]["level"] >= 2


def test_only_rows_to_be_built_have_a_level() -> None:
    for row in catalog.entries():
        assert (row.level is None) == (not row.file and row.verdict in ("reference", "out")), row.name


def test_a_paper_with_a_file_is_one_row() -> None:
    names = [plain_name(e.name) for e in catalog.entries()]
    assert len(names) == len(set(names))
    assert set(method_files.built()) <= set(names)


@pytest.mark.parametrize(("typed", "line"), [
    ("grop", r"method = 'grop': no such method; did you mean 'grpo'\?"),
    ("zzzzzz", "method = 'zzzzzz': no such method"),
    ("rl-zero", "method = 'rl-zero': in the catalogue, not built yet"),
])
def test_wrong_method(typed: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        catalog.find(typed)


@pytest.mark.parametrize("typed", ["grpo", "GRPO", " grpo "])
def test_spelling(typed: str) -> None:
    assert catalog.find(typed).path == GRPO
    assert plain_name("Qwen2.5_Math") == "qwen2-5-math"


def test_make() -> None:
    assert catalog.make("grpo", clip_high=0.3).clip_high == 0.3  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"'clip_hihg'.*did you mean 'clip_high'"):
        catalog.make("grpo", clip_hihg=0.3)
    with pytest.raises(UserError, match=re.escape("clip_high = -1: must be ≥ 0")):
        catalog.make("grpo", clip_high=-1)
