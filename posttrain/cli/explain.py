"""`posttrain explain NAME`: what a method does, from its own file; for a paper not built yet, its idea."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from posttrain.cli import equation
from posttrain.cli.equation import LEGEND, Line
from posttrain.cli.methods import level_name
from posttrain.cli.options import Parser
from posttrain.core import catalog, method_files
from posttrain.core.catalog import Entry
from posttrain.core.method_files import MethodFile, plain_name
from posttrain.core.source import Field

PIPE_WIDTH = 110


def make_parser() -> Parser:
    parser = Parser("explain NAME", "One method: equation, hyperparameters, deviations, evidence.",
                    ["posttrain explain grpo", "posttrain explain dapo"])
    parser.add_argument("name", metavar="NAME", help="what posttrain methods lists")
    return parser


def run(arguments: Sequence[str]) -> int:
    found, _ = make_parser().read(arguments)
    row = catalog.entry(found.name)
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    with console.capture() as page:
        console.print(Text(row.name, style="bold") + Text(f"  {row.title}"))
        for method in catalog.files(found.name):
            _built(console, row, method)
        if not row.file:
            _planned(console, row)
    print("\n".join(line.rstrip() for line in page.get().splitlines()))
    return 0


def _planned(console: Console, row: Entry) -> None:
    console.print(Padding(row.idea, (1, 0, 1, 2)))
    to_come = "not built yet" if row.level is not None else "kept for reading, not to be built"
    _facts(console, [("kind", f"{row.kind}, {row.family}"), ("verdict", row.verdict),
                     ("level", f"{level_name(row)}: {to_come}")])


def _built(console: Console, row: Entry, method: MethodFile) -> None:
    told = method.explanation
    if told.summary != row.title:
        console.print(Padding(told.summary, (1, 0, 0, 0)))
    if row.idea:
        console.print(Padding(row.idea, (1, 0, 0, 2)))
    before = method_files.built().get(plain_name(method.citation.parent))
    now, then = equation.compare(told.equation, before.explanation.equation if before else "")
    if now:
        console.print()
        _equation(console, now)
    _section(console, _against(method.citation.parent, before), told.new)
    if before:
        if changed := equation.settings_changed(method.fields, before.fields):
            console.print(Padding(Text("hyperparameters: " + ", ".join(changed)), (0, 0, 0, 2)))
        if now and then:
            _parent_equation(console, before, now, then)
    console.print()
    console.print(Text("hyperparameters", style="bold"))
    console.print(Padding(_hyperparameters(method.fields), (0, 0, 0, 2)))
    _section(console, "deviations", told.deviations)
    console.print()
    citation = method.citation
    _facts(console, [
        ("paper", f"{citation.cite}  {citation.link}".strip()),
        ("parent", method.citation.parent), ("level", level_name(row) if method.ours else ""),
        ("file", f"{row.file}, {method.code_lines} lines of code"), ("run it", command(method))])


def command(method: MethodFile) -> str:
    """A run of the kind that it is shown for, on a task that every machine has."""
    if method.home == "control" and method.shelf == method_files.CURRICULUM:
        return f"posttrain train td3-bc --task Pendulum-v1 --dataset DIR --curriculum {method.name}"
    if method.shelf == method_files.CURRICULUM:
        return f"posttrain train grpo --curriculum {method.name} --policy smollm2-135m --task addition,word-problems"
    if method.home == "control":
        given = method.defaults("control")
        task = given.get("task", "CartPole-v1" if given.get("policy") == "greedy" else "Pendulum-v1")
        return f"posttrain train {method.spec} --task {task}" + "".join(
            f" --{option} {what}" for option, what in asked(method, given).items())
    chosen = {"pictures": "--policy digits-flow", "masked": "--policy tiny-masked --task char-addition --steps 60"}
    return f"posttrain train {method.spec} " + chosen.get(
        method.home, "--policy smollm2-135m --task addition --steps 60")


def asked(method: MethodFile, given: Mapping[str, Any]) -> Mapping[str, str]:
    """The options of a control run without which there is nothing to learn from; given: its defaults."""
    found = {}
    if given.get("source") == "dataset" or given.get("dataset_share", 1) < 1 or method.stated(
            "learns_from") == "stretches":
        found["dataset"] = "DIR"
    if "teacher" in method.needs:
        found["teacher"] = "RUN"
    if method.stated("continues"):
        found["start-from"] = "RUN"
    return found


def _against(parent: str, before: MethodFile | None) -> str:
    if not parent:
        return "what is new"
    return f"what is new, against {parent}" + ("" if before else ", which is not built yet")


def _parent_equation(console: Console, parent: MethodFile, now: Sequence[Line], then: Sequence[Line]) -> None:
    """The parent's equation under the child's; the marks of both are explained once."""
    marks = [mark for mark in LEGEND if any(line.mark == mark for line in (*now, *then))]
    legend = f"   ({', '.join(f'{mark} {LEGEND[mark]}' for mark in marks)})" if marks else ""
    console.print()
    console.print(Text(f"the equation of {parent.name}", style="bold") + Text(legend, style="dim"))
    _equation(console, then)


def _equation(console: Console, lines: Sequence[Line]) -> None:
    """A mark in the margin of each line that differs; on a terminal, what differs stands out too."""
    for line in lines:
        text = Text(line.text, style="cyan")
        for start, end in line.changed:
            text.stylize("bold red" if line.mark == "-" else "bold yellow", start, end)
        margin = Text(f"  {line.mark or ' '} ", style="bold")
        console.print(margin + text[len(margin):], soft_wrap=True)


def _section(console: Console, title: str, text: str) -> None:
    if text:
        console.print()
        console.print(Text(title, style="bold"))
        console.print(Padding(Text(_reflowed(text)), (0, 0, 0, 2)))


def _reflowed(text: str) -> str:
    """Paragraphs joined into one line each, for the console to break where it is as wide as it is."""
    return "\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _hyperparameters(fields: Sequence[Field]) -> Table:
    table = Table.grid(padding=(0, 2))
    for heading in ("", "symbol", "default", "range", "meaning", "source"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("", "symbol", "default"))
    table.add_row(*(Text(h, style="dim") for h in ("", "symbol", "default", "range", "meaning", "source")))
    for f in fields:
        table.add_row(Text(f.name), Text(f.symbol), f.shown_default, _range(f), Text(f.unit), Text(f.source))
    return table


def _range(field: Field) -> str:
    """`≥ 0`, without the words that a default already tells."""
    return field.allowed.replace("whole number", "").replace("number", "").strip()


def _facts(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        if text:
            table.add_row(label, Text(text))
    console.print(table)
