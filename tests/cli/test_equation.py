"""What an equation changes in another: the marks of whole lines, and the parts that differ."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.cli import equation
from posttrain.cli.equation import Line
from posttrain.core import method_files
from posttrain.core.method_files import plain_name
from posttrain.core.source import Field

BUILT = [(child, method_files.methods()[parent]) for child in method_files.methods().values()
         if (parent := plain_name(child.citation.parent)) in method_files.methods()]


def differing(line: Line) -> list[str]:
    return [line.text[start:end] for start, end in line.changed]


def test_marks_and_parts_of_each_line() -> None:
    child, parent = equation.compare(
        "    A = r − m\n    s = exp x\n    L = −mean min( s A, c )",
        "    A = r − m\n    ρ = π / μ\n    L = −mean min( ρ A, c ) + k")
    assert [line.mark for line in child] == ["", "+", "~"]
    assert [line.mark for line in parent] == ["", "-", "~"]
    assert [differing(line) for line in child] == [[], ["s = exp x"], ["s"]]
    assert [differing(line) for line in parent] == [[], ["ρ = π / μ"], ["ρ", "+ k"]]


def test_an_equation_against_itself_or_nothing_has_no_marks() -> None:
    text = "    A   = r,  B = 2\n    L   = A\n          + B"
    for child, parent in ((text, text), (text, text.replace("   =", " =")), (text, "")):
        for line in (line for part in equation.compare(child, parent) for line in part):
            assert line == Line(line.text)
    assert equation.compare("", text)[0] == []


def test_a_definition_still_used_is_taken_over() -> None:
    _, parent = equation.compare("    L = ρ_it A", "    ρ_it = π / μ\n    g_it = 2 π\n    L = ρ_it A")
    assert [line.mark for line in parent] == ["", "-", ""]
    _, parent = equation.compare("    L = ρ_it A", "    ρ_i = π / μ\n    L = ρ_it A")  # ρ_i is no part of ρ_it
    assert parent[0].mark == "-"


def test_other_indices_are_the_same_symbol() -> None:
    child, parent = equation.compare("    A_it = r_it", "    A_i = r_i")
    assert (child[0].mark, parent[0].mark) == ("~", "~")


def test_two_definitions_on_one_line_are_compared_apart() -> None:
    child, parent = equation.compare("    a = 1,  b = 3", "    a = 1\n    b = 2")
    assert (child[0].mark, differing(child[0])) == ("~", ["3"])
    assert [line.mark for line in parent] == ["", "~"]
    child, _ = equation.compare("    a = 1,  c = 3", "    a = 1")
    assert (child[0].mark, differing(child[0])) == ("~", ["c = 3"])  # only a part of the line is new


def test_a_line_that_goes_on_belongs_to_the_one_before() -> None:
    child, _ = equation.compare("    L = x y z\n        + w", "    L = x y z")
    assert [(line.mark, differing(line)) for line in child] == [("~", []), ("~", ["+ w"])]


def test_formulas_with_little_in_common_differ_from_the_first_difference_on() -> None:
    child, parent = equation.compare("    L = a b c d e f m", "    L = g h c i j k l")
    assert differing(child[0]) == ["a b c d e f m"]
    assert differing(parent[0]) == ["g h c i j k l"]


@pytest.mark.parametrize(("child", "parent"), BUILT, ids=[child.name for child, _ in BUILT])
def test_marks_keep_every_method_readable(child: method_files.MethodFile, parent: method_files.MethodFile) -> None:
    """No text is lost, parts lie within their line, and what is unmarked in the child is the parent's or its own."""
    for told, side in zip((child, parent), equation.compare(child.explanation.equation, parent.explanation.equation),
                          strict=True):
        assert [line.text for line in side] == equation.lines(told.explanation.equation)
        for line in side:
            edges = [edge for span in line.changed for edge in span]
            assert edges == sorted(edges)
            assert all(0 <= edge <= len(line.text) for edge in edges)
            assert line.mark or not line.changed


def field(name: str, default: Any) -> Field:
    return Field(name, float, default, "")


def test_hyperparameters_that_differ() -> None:
    child = [field("a", 1.0), field("b", 2e-4), field("d", 3.0)]
    parent = [field("a", 1.0), field("b", 0.2), field("c", 0.0)]
    assert equation.settings_changed(child, parent) == ["b 0.2 → 0.0002", "new d = 3", "no c"]
    assert equation.settings_changed(child, child) == []
