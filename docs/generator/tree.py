"""The genealogy of the methods as an SVG picture whose names are links: parents on the left, by year from the top."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

ROW, BOX, GAP, EDGE = 30, 22, 44, 8  # pixels: row pitch, height of a box, between columns, around the picture
LETTER = 7.0  # width of a letter of 12.5 pixels


@dataclass(frozen=True)
class Node:
    """A method; `level` is None where it is only somebody's parent and has no file."""

    name: str
    parent: str
    cite: str
    summary: str
    level: int | None

    @property
    def year(self) -> str:
        found = re.search(r"\b(19|20)\d\d\b", self.cite)
        return found.group() if found else ""

    @property
    def width(self) -> float:
        return LETTER * (len(self.name) + (5 if self.year else 0)) + 18


def with_parents(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, and a node of no level for every parent that is not among them."""
    known = {n.name for n in nodes}
    missing = sorted({n.parent for n in nodes if n.parent} - known)
    return [*(Node(name, "", "", "no method of its own here yet", None) for name in missing), *nodes]


def draw(nodes: Sequence[Node], link: Callable[[Node], str]) -> str:
    """The picture, for standing in a page; its colours come from the page's style sheet."""
    drawn = _Drawing(with_parents(nodes))
    drawn.place()
    edges = "\n".join(drawn.branches(parent) for parent in drawn.nodes if drawn.grown.get(parent.name))
    boxes = "\n".join(drawn.box(n, link(n)) for n in drawn.nodes)
    width, height = drawn.width + 2 * EDGE, drawn.height + 2 * EDGE
    return (f'<svg class="family" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="family tree of methods" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}">\n'
            f"{edges}\n{boxes}\n</svg>")


class _Drawing:
    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = sorted(nodes, key=lambda n: (n.year, n.name))
        names = {n.name for n in nodes}
        self.children: dict[str, list[Node]] = {}
        for n in self.nodes:
            self.children.setdefault(n.parent if n.parent in names else "", []).append(n)
        self.at: dict[str, tuple[int, float]] = {}  # column, row
        self.grown: dict[str, list[Node]] = {}  # parent -> the children that are drawn to its right
        self.rows = 0.0

    def place(self) -> None:
        roots = sorted(self.children.get("", []), key=lambda n: (-self._size(n), n.name))
        for root in [r for r in roots if self.children.get(r.name)]:
            self._place(root, 0)
        self._circles()
        columns = max((column for column, _ in self.at.values()), default=0)
        widest = [max((n.width for n in self.nodes if n.name in self.at and self.at[n.name][0] == c), default=0.0)
                  for c in range(columns + 1)]
        self.left = [EDGE + sum(widest[:c]) + GAP * c for c in range(columns + 1)]
        self.width = sum(widest) + GAP * columns
        self.rows += 0.5 if self.at else 0.0
        self._place_alone([r for r in roots if r.name not in self.at])
        self.height = self.rows * ROW

    def _place_alone(self, alone: Sequence[Node]) -> None:
        """Methods without family, side by side under the tree."""
        self.x: dict[str, float] = {}
        x, limit = 0.0, max(self.width, 700.0)
        for n in alone:
            if x and x + n.width > limit:
                x, self.rows = 0.0, self.rows + 1
            self.at[n.name], self.x[n.name] = (0, self.rows), EDGE + x
            x += n.width + 14
            self.width = max(self.width, x - 14)
        self.rows += 1 if alone else 0

    def _size(self, node: Node, above: frozenset[str] = frozenset()) -> int:
        below = [c for c in self.children.get(node.name, []) if c.name not in above]
        return 1 + sum(self._size(c, above | {node.name}) for c in below)

    def _place(self, node: Node, column: int) -> float:
        """Give the node and all below it their places; returns its row, midway between its children's."""
        self.at[node.name] = (column, 0.0)
        rows = []
        for child in self.children.get(node.name, []):
            if child.name not in self.at:
                self.grown.setdefault(node.name, []).append(child)
                rows.append(self._place(child, column + 1))
        if rows:
            row = (rows[0] + rows[-1]) / 2
        else:
            row, self.rows = self.rows, self.rows + 1
        self.at[node.name] = (column, row)
        return row

    def _circles(self) -> None:
        """Methods that name each other as parents hang on no root: the first by year becomes one."""
        alone = {r.name for r in self.children.get("", [])}
        for n in self.nodes:
            if n.name not in self.at and n.name not in alone:
                self._place(n, 0)

    def _corner(self, node: Node) -> tuple[float, float]:
        column, row = self.at[node.name]
        return self.x.get(node.name, self.left[column]), EDGE + row * ROW + (ROW - BOX) / 2

    def branches(self, parent: Node) -> str:
        """One path to all children, so that where they run together nothing is drawn twice."""
        x, y = self._corner(parent)
        x, y = x + parent.width, y + BOX / 2
        to_x = self._corner(self.grown[parent.name][0])[0]
        bend, paths = to_x - GAP / 2, f"M{x:.1f} {y:.1f} H{to_x - GAP:.1f}"
        for child in self.grown[parent.name]:
            to_y = self._corner(child)[1] + BOX / 2
            paths += f" M{to_x - GAP:.1f} {y:.1f} C{bend:.1f} {y:.1f} {bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
        return f'<path class="edge" d="{paths}"/>'

    def box(self, node: Node, link: str) -> str:
        x, y = self._corner(node)
        year = f' <tspan class="year">{node.year}</tspan>' if node.year else ""
        kind = "missing" if node.level is None else f"level-{node.level}"
        shape = (f"<title>{escape(node.summary)}</title>"
                 f'<rect x="{x:.1f}" y="{y:.1f}" width="{node.width:.1f}" height="{BOX}" rx="5"/>'
                 f'<text x="{x + 9:.1f}" y="{y + 15.5:.1f}">{escape(node.name)}{year}</text>')
        held = f'<a href="{escape(link)}">{shape}</a>' if link else shape
        return f'<g class="{kind}">{held}</g>'
