"""Where figures go, and which do not."""

from __future__ import annotations

import json
from pathlib import Path

import published
import pytest
from versus import command
from versus.quiet import Disturbed

from posttrain.core.errors import PosttrainError

NAMES = ("grpo-step", "update", "rollout", "scaling", "long", "leak")


def page(root: Path) -> Path:
    (root / "docs").mkdir()
    file = root / published.PAGE
    file.write_text("a\n<!-- begin one -->\nold\n<!-- end one -->\nb\n<!-- begin two -->\nkept\n<!-- end two -->\n")
    return file


def test_figures_and_lines_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = page(tmp_path)
    monkeypatch.setattr(published, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["/any/where/one.py", "--steps", "3", "--python", "/of/mine/python"])
    published.publish("one", {"sizes": [1]}, ["new", "lines"], anyway=False)
    assert file.read_text() == ("a\n<!-- begin one -->\nnew\nlines\n<!-- end one -->\nb\n<!-- begin two -->\nkept\n"
                                "<!-- end two -->\n")
    assert json.loads((tmp_path / "evidence/one.json").read_text()) == {
        "command": "python benchmarks/one.py --steps 3 --python python", "sizes": [1]}


def test_figures_of_a_busy_machine_are_printed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    before = page(tmp_path).read_text()
    monkeypatch.setattr(published, "ROOT", tmp_path)
    published.publish("one", {}, ["new"], anyway=True)
    assert capsys.readouterr().out == "new\n"
    assert (tmp_path / published.PAGE).read_text() == before
    assert not (tmp_path / "evidence").exists()


def test_a_page_without_marks_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page(tmp_path)
    monkeypatch.setattr(published, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="<!-- begin three -->"):
        published.publish("three", {}, ["new"], anyway=False)
    assert not (tmp_path / "evidence").exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_the_marks(name: str) -> None:
    published.between((published.ROOT / published.PAGE).read_text(encoding="utf-8"), ["x"], name)


def test_a_busy_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("versus.quiet.watch", lambda: 0.5)
    with pytest.raises(PosttrainError, match=r"0\.50 cores, more than 0\.10; .*--anyway"):
        published.watch(anyway=False)


def test_a_size_that_fails_does_not_lose_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def halved(number: int) -> int:
        if number % 2:
            raise PosttrainError("odd")
        return number // 2

    assert command.each([4, 3, 8], halved) == ([2, 4], ["Not measured: 3: odd."])
    assert capsys.readouterr().err == "Not measured: 3: odd.\n"
    with pytest.raises(PosttrainError, match="odd"):
        command.each([3, 4], halved)


def test_a_size_that_others_disturb_is_measured_again() -> None:
    tried = []

    def third(number: int) -> int:
        tried.append(number)
        if number != 3 or tried.count(number) < 3:
            raise Disturbed("busy")
        return number

    assert command.each([3, 7], third) == ([3], ["Not measured: 7: busy."])
    assert tried == [3, 3, 3, 7, 7, 7]


def test_markdown() -> None:
    assert published.markdown(("a", "b"), [["1", "2"], ["3", ""]]) == [
        "| a | b |", "|---|---|", "| 1 | 2 |", "| 3 |  |"]
