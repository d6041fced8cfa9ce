"""`posttrain methods`: every method and catalogued paper, as a table, a tree or JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Literal

from posttrain.cli.options import Parser
from posttrain.core import catalog, levels
from posttrain.core.catalog import Entry
from posttrain.core.method_files import plain_name
from posttrain.core.source import Field

Verdict = Literal["foundation", "core", "recipe", "system", "reference", "out"]
OPTIONS = (
    Field("level", Literal[0, 1, 2, 3], None, "only this level: 0 planned, 1 runs, 2 pinned, 3 shown"),
    Field("verdict", Verdict, None, "only this verdict"),
    Field("search", str, None, "only rows whose name, title, family or idea holds this text"),
)


def make_parser() -> Parser:
    parser = Parser("methods", "Every method that is built and every paper in the catalogue.",
                    ["posttrain methods --level 2", "posttrain methods --search clip",
                     "posttrain methods --tree", "posttrain methods --json | jq '.[].name'"])
    parser.declare("which", OPTIONS)
    how = parser.add_argument_group("how")
    how.add_argument("--tree", action="store_true", help="methods under the method that each changes")
    how.add_argument("--json", action="store_true", help="a list of objects, one a row")
    return parser


def run(arguments: Sequence[str]) -> int:
    found, given = make_parser().read(arguments)
    rows = [e for e in catalog.entries() if _wanted(e, **given)]
    if found.json:
        print(json.dumps([asdict(e) for e in rows], ensure_ascii=False, indent=1))
    elif found.tree:
        print("\n".join(tree(rows)) or "no method matches")
    else:
        print_table(rows)
    return 0


def _wanted(row: Entry, level: int | None = None, verdict: str = "", search: str = "") -> bool:
    text = f"{row.name} {row.title} {row.family} {row.idea} {row.cite}".lower()
    return level in (None, row.level) and verdict in ("", row.verdict) and search.lower() in text


def level_name(row: Entry) -> str:
    """`2 pinned`; a dash for a row that is not to be built."""
    if row.level is None:
        return "–"
    return f"{row.level} {levels.NAMES[row.level]}" + (f": {row.evidence}" if row.evidence else "")


def print_table(rows: Sequence[Entry]) -> None:
    """On a terminal, columns that fit it; on a pipe, whole values between tabs and no heading."""
    if not sys.stdout.isatty():
        for e in rows:
            print("\t".join(_cells(e)))
        return
    width = shutil.get_terminal_size().columns
    for line in table(rows, width):
        print(line)
    built = sum(bool(e.file) for e in rows)
    print(f"\n{len(rows)} rows, {built} built; posttrain explain NAME tells more")


def _cells(e: Entry) -> list[str]:
    title = f"{e.title} ({e.cite})" if e.cite else e.title
    return [e.name, title, e.shelf or e.family, level_name(e), e.verdict, e.file]


def table(rows: Sequence[Entry], width: int) -> list[str]:
    """Lines of at most `width` cells: the title gives way first; a narrow table leaves out shelf and file."""
    kept = range(6) if width >= 150 else (0, 1, 3, 4, 5) if width >= 110 else (0, 1, 3, 4)
    lines = [[("name", "title", "shelf", "level", "verdict", "file")[i] for i in kept]]
    lines += [[_cells(e)[i] for i in kept] for e in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    widths[0] = min(widths[0], width // 4)
    widths[1] = max(12, min(widths[1], width - sum(widths) + widths[1] - 2 * (len(widths) - 1)))
    fitted = ("  ".join(_fit(cell, w) for cell, w in zip(line, widths, strict=True)) for line in lines)
    return [line[:width].rstrip() for line in fitted]


def _fit(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[:width - 1] + "…"


def tree(rows: Iterable[Entry]) -> list[str]:
    """Built methods under their parents; a parent without a file stands in brackets."""
    shown = {e.name: e for e in rows if e.file}
    children: dict[str, list[str]] = {}
    for name, e in shown.items():
        children.setdefault(plain_name(e.parent), []).append(name)
    roots = sorted({p for p in children if p and p not in shown} | set(children.get("", [])))
    lines: list[str] = []
    for root in roots:
        lines += [_label(root, shown), *_branch(root, children, shown, "", {root})]
    return lines


def _branch(name: str, children: dict[str, list[str]], shown: dict[str, Entry], indent: str,
            above: set[str]) -> list[str]:
    lines: list[str] = []
    below = [c for c in sorted(children.get(name, [])) if c not in above]  # a circle is cut, not followed
    for i, child in enumerate(below):
        last = i == len(below) - 1
        lines.append(f"{indent}{'└─ ' if last else '├─ '}{_label(child, shown)}")
        lines += _branch(child, children, shown, indent + ("   " if last else "│  "), above | {child})
    return lines


def _label(name: str, shown: dict[str, Entry]) -> str:
    row = shown.get(name)
    return f"{name}  {row.cite or row.title} · {level_name(row)}" if row else f"[{name}]"
