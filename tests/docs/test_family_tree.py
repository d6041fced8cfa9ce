"""The picture of the family tree: everyone is in it once, nothing overlaps, and it is the same every time."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from generator import pages, tree
from generator.tree import Node

from posttrain.core import method_files

SVG = "{http://www.w3.org/2000/svg}"


def node(name: str, parent: str = "", year: int = 2020) -> Node:
    return Node(name, parent, f"Someone et al., {year}", f"{name} does", 2)


def drawn(*nodes: Node) -> dict[str, tuple[float, float, float]]:
    """name -> left, top, width of its box."""
    root = ElementTree.fromstring(tree.draw(nodes, lambda n: f"../{n.name}/"))
    found = {}
    for group in root.iter(f"{SVG}g"):
        box, text = next(group.iter(f"{SVG}rect")), next(group.iter(f"{SVG}text"))
        assert text.text
        found[text.text.strip()] = (float(box.attrib["x"]), float(box.attrib["y"]), float(box.attrib["width"]))
    return found


FAMILY = (node("a", year=2000), node("b", "a", 2010), node("c", "a", 2005), node("d", "b"), node("lone"),
          node("e", "gone"))


def test_children_stand_right_of_their_parent_and_by_year() -> None:
    at = drawn(*FAMILY)
    assert set(at) == {"a", "b", "c", "d", "e", "gone", "lone"}
    for child, parent in (("b", "a"), ("c", "a"), ("d", "b"), ("e", "gone")):
        assert at[child][0] >= at[parent][0] + at[parent][2]
    assert at["c"][1] < at["b"][1]
    assert at["a"][1] == (at["b"][1] + at["c"][1]) / 2
    assert at["lone"][1] > max(y for name, (_, y, _) in at.items() if name != "lone")


def test_no_boxes_overlap_in_the_tree_of_all_methods() -> None:
    svg = re.search(r"<svg.*</svg>", pages.build().pages["tree.md"], re.DOTALL)
    assert svg
    root = ElementTree.fromstring(svg.group())
    boxes = [tuple(float(r.attrib[k]) for k in ("x", "y", "width", "height")) for r in root.iter(f"{SVG}rect")]
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for i, (x, y, w, h) in enumerate(boxes):
        assert x >= 0
        assert x + w <= width
        assert y >= 0
        assert y + h <= height
        for a, b, c, d in boxes[:i]:
            assert x >= a + c or a >= x + w or y >= b + d or b >= y + h
    links = [a.attrib["href"] for a in root.iter(f"{SVG}a")]
    assert {f"../methods/{name}/" for name in method_files.methods()} <= set(links)
    assert len(links) == len(set(links))


def test_a_circle_of_parents_is_drawn_once() -> None:
    assert set(drawn(node("a", "b"), node("b", "a"), node("c", "c"))) == {"a", "b", "c"}


def test_the_order_of_the_files_does_not_matter() -> None:
    assert tree.draw(FAMILY, lambda n: n.name) == tree.draw(FAMILY[::-1], lambda n: n.name)


def test_a_name_is_escaped() -> None:
    svg = tree.draw([Node("a<b", "", "", 'x "&" y', 1)], lambda n: 'x"y')
    assert ElementTree.fromstring(svg).find(f".//{SVG}title").text == 'x "&" y'  # type: ignore[union-attr]
