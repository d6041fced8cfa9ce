"""What a method's equation changes in its parent's, line by line.

A line defines what stands before its first relation sign; lines that only go on belong to the one before.  Two lines
are compared where they define the same symbol, or the same symbol with other indices (Â_i and Â_it).  A definition
that the child does not repeat but still uses is taken over, not gone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from posttrain.core.source import Field

Mark = Literal["", "+", "~", "-"]
LEGEND: dict[Mark, str] = {"+": "new", "~": "changed", "-": "gone"}
ALIKE = 0.4  # formulas less alike than this differ from the first difference on

RELATION = re.compile(r"\s[=∝←~≈]\s")
NEXT = re.compile(r"[,;]\s{2,}(?=[^\s=]+\s+[=∝←]\s)")  # between two definitions on one line
TOKEN = re.compile(r"\w+|[^\w\s]")
CONTINUES = re.compile(r"[+−·×∕/-]\s")


@dataclass(frozen=True)
class Line:
    """A line of an equation.

    mark: + its definition is new, ~ changed, - gone; empty where it stands unchanged or is taken over.
    changed: (start, end) of the parts of `text` that the other equation lacks.
    """

    text: str
    mark: Mark = ""
    changed: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Definition:
    """A symbol and its formula: the (line, start, end) of every piece of text that it is made of."""

    symbol: str
    pieces: tuple[tuple[int, int, int], ...]


def lines(equation: str) -> list[str]:
    return [line.rstrip() for line in equation.splitlines() if line.strip()]


def compare(child: str, parent: str) -> tuple[list[Line], list[Line]]:
    """Both equations with marks: what is new or changed in the child's, what is gone or changed in the parent's.

    Against nothing, nothing is marked.
    """
    new, old = lines(child), lines(parent)
    if not new or not old:
        return [Line(text) for text in new], [Line(text) for text in old]
    mine, theirs = definitions(new), definitions(old)
    pairs = _pairs(mine, theirs)
    matched = {id(d) for pair in pairs for d in pair}
    marks_new, marks_old = _Marks(new), _Marks(old)
    for a, b in pairs:
        ours, before = _tokens(a, new), _tokens(b, old)
        if [t for t, *_ in ours] != [t for t, *_ in before]:
            spans_new, spans_old = _differing(ours, before)
            marks_new.put(a, "~", spans_new)
            marks_old.put(b, "~", spans_old)
        else:
            marks_new.put(a, "", [])
            marks_old.put(b, "", [])
    for d in mine:
        if id(d) not in matched:
            marks_new.put(d, "+", [])
    for d in theirs:
        if id(d) not in matched and not _used(d.symbol, child):
            marks_old.put(d, "-", [])
    return marks_new.lines(), marks_old.lines()


def definitions(text: Sequence[str]) -> list[Definition]:
    base = min((_indent(line) for line in text), default=0)
    found: list[Definition] = []
    for i, line in enumerate(text):
        start = _indent(line)
        if found and not RELATION.search(line) and (start > base or CONTINUES.match(line.lstrip())):
            last = found.pop()
            found.append(Definition(last.symbol, (*last.pieces, (i, start, len(line)))))
            continue
        for gap in [*NEXT.finditer(line, start), None]:
            end = gap.start() if gap else len(line)
            found.append(Definition(_symbol(line[start:end]), ((i, start, end),)))
            start = gap.end() if gap else end
    return found


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _symbol(text: str) -> str:
    """What a definition defines; the whole text where it holds no relation."""
    sign = RELATION.search(text)
    return " ".join(text[:sign.start() if sign else None].split())


def _bare(symbol: str) -> str:
    return symbol.partition("_")[0]


def _pairs(mine: Sequence[Definition], theirs: Sequence[Definition]) -> list[tuple[Definition, Definition]]:
    """Definitions of the same symbol, in order; of what is left, those that differ in their indices alone."""
    pairs: list[tuple[Definition, Definition]] = []
    left = list(theirs)
    waiting = list(mine)
    for same in (lambda s: s, _bare):
        for d in list(waiting):
            other = next((o for o in left if same(o.symbol) == same(d.symbol)), None)
            if other:
                pairs.append((d, other))
                left.remove(other)
                waiting.remove(d)
    return pairs


def _used(symbol: str, equation: str) -> bool:
    """Whether one of the names of a symbol such as `q_d, q_u` occurs in the equation."""
    names = [name.strip() for name in symbol.split(",")]
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", equation) for name in names if name)


def _tokens(definition: Definition, text: Sequence[str]) -> list[tuple[str, int, int, int]]:
    """(token, line, start, end) of a definition, spaces aside."""
    return [(m.group(), i, m.start(), m.end())
            for i, start, end in definition.pieces for m in TOKEN.finditer(text[i], start, end)]


Span = tuple[int, int, int]  # line, start, end


def _differing(a: list[tuple[str, int, int, int]], b: list[tuple[str, int, int, int]]) -> tuple[list[Span], list[Span]]:
    match = SequenceMatcher(None, [t for t, *_ in a], [t for t, *_ in b], autojunk=False)
    if match.ratio() < ALIKE:
        same = next((i for i, (s, t) in enumerate(zip(a, b, strict=False)) if s[0] != t[0]), min(len(a), len(b)))
        return [t[1:] for t in a[same:]], [t[1:] for t in b[same:]]
    edits = [op for op in match.get_opcodes() if op[0] != "equal"]
    return [t[1:] for _, i, j, _, _ in edits for t in a[i:j]], [t[1:] for _, _, _, i, j in edits for t in b[i:j]]


class _Marks:
    """The marks of each line of one equation; `~` where a line holds definitions of different fates."""

    def __init__(self, text: list[str]) -> None:
        self.text = text
        self.marks: list[set[Mark]] = [set() for _ in text]
        self.spans: list[list[tuple[int, int]]] = [[] for _ in text]

    def put(self, definition: Definition, mark: Mark, spans: list[Span]) -> None:
        for i, start, end in definition.pieces:
            self.marks[i].add(mark)
            if mark in ("+", "-"):
                self.spans[i].append((start, end))
        for i, start, end in spans:
            self.spans[i].append((start, end))

    def lines(self) -> list[Line]:
        return [Line(text, self._mark(i), self._merged(i)) for i, text in enumerate(self.text)]

    def _mark(self, i: int) -> Mark:
        return "~" if len(self.marks[i]) > 1 else next(iter(self.marks[i]), "")

    def _merged(self, i: int) -> tuple[tuple[int, int], ...]:
        """Spans joined where only spaces part them."""
        joined: list[tuple[int, int]] = []
        for start, end in sorted(self.spans[i]):
            if joined and not self.text[i][joined[-1][1]:start].strip():
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        return tuple(joined)


def settings_changed(child: Sequence[Field], parent: Sequence[Field]) -> list[str]:
    """`clip_low 0.2 → 0.0003`, `new tau = 1`, `no kl_coef`: how the hyperparameters differ from the parent's."""
    before: Mapping[str, Field] = {f.name: f for f in parent}
    names = {f.name for f in child}
    told = [f"{f.name} {before[f.name].shown_default} → {f.shown_default}" for f in child
            if f.name in before and before[f.name].default != f.default]
    told += [f"new {f.name}" + (f" = {f.shown_default}" if f.shown_default else "")
             for f in child if f.name not in before]
    return told + [f"no {name}" for name in before if name not in names]
