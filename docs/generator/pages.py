"""Every generated page as Markdown, from what the catalogue reads in the method files; nothing here imports torch.

A new method file is a new page, a new branch of the tree and a new row of the catalogue: nothing is listed here.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from generator import formula, tree
from posttrain.cli import equation
from posttrain.cli.explain import command
from posttrain.cli.methods import level_name
from posttrain.core import catalog, levels, method_files, source
from posttrain.core.catalog import Entry
from posttrain.core.method_files import MethodFile, plain_name
from posttrain.core.source import Field

ROOT = method_files.PACKAGE.parent
GUIDE = ("cli", "tasks", "learning", "benchmarks", "peers")  # these first, then every other page of docs/
ALONE = "---\nhide: [navigation]\nsearch: {boost: 0.2}\n---"  # it stands alone; methods are found first
ACRONYMS = {"llm", "vlm", "vla", "dlm", "rl", "rlvr", "rlhf", "irl", "marl", "sft", "rag"}
FILES = "files"  # where the site keeps copies of files that pages link to
SHELVES = {
    "groups": "several samples per prompt, no critic",
    "actor_critic": "fresh trajectories and a critic",
    "off_policy": "a growing replay",
    "offline": "fixed transitions",
    "preference": "pairs or labels",
    "imitation": "demonstrations or a teacher",
    "reward_learning": "what the reward should be",
    "planning": "a learned model or search",
    "multi_agent": "several learners",
    "constrained": "a return and what it may cost",
    "meta": "learning to learn",
    "black_box": "no policy gradient",
    "curriculum": "which prompts to learn from",
}
LEVELS = (
    ("named in the catalogue", "Nothing yet: there is no file."),
    ("trains through the real loop and passes the conformance suite",
     "`tests/test_every_method.py` takes in every method file: finite gradients; indifference to padding, packing, "
     "micro-batches and row order; masked decisions inert; a ratio of exactly 1 before the first update; bit-exact "
     "resume."),
    ("its own closed form, limit or identity holds, worked by hand, through the real pipeline",
     "`tests/methods/**/test_NAME.py`, shown on each method's page."),
    ("its claim was tried against its stated baseline, on several seeds with a matched budget",
     "`evidence/NAME.json`: reproduced, not reproduced, or inconclusive, with the interval of the difference. Not "
     "reproduced is a result too."),
)


@dataclass
class Site:
    """What is generated: pages by their address under docs/, and files of the repository that they link to."""

    pages: dict[str, str] = field(default_factory=dict)
    copies: dict[str, Path] = field(default_factory=dict)

    def copy(self, path: Path) -> str:
        """Publish a file of the repository; returns its address."""
        address = f"{FILES}/{path.relative_to(ROOT).as_posix()}"
        self.copies[address] = path
        return address


def build() -> Site:
    site = Site()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    site.pages["index.md"] = "---\nhide: [navigation]\n---\n\n" + linked(readme, ROOT, site)
    rows = {e.name: e for e in catalog.entries()}
    methods = documented()
    site.pages["methods/index.md"] = overview(methods, rows)
    for method in methods.values():
        site.pages[f"methods/{method.name}.md"] = method_page(method, methods, rows, site)
    site.pages["tree.md"] = tree_page(methods, rows)
    site.pages["catalogue.md"] = catalogue_page(rows.values(), methods)
    site.pages["levels/index.md"] = levels_page(rows.values())
    for level in range(len(LEVELS)):
        site.pages[f"levels/{levels.NAMES[level]}.md"] = level_page(level, rows.values(), methods)
    return site


def documented() -> dict[str, MethodFile]:
    """Every method, and every curriculum that a file of its own names."""
    found = dict(method_files.methods())
    for path in sorted((method_files.PACKAGE / "data" / "curriculum").glob("[!_]*.py")):
        plain = path.stem.replace("_", "")
        names = re.findall(r"^(?:class|def) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        owner = next((n for n in names if n.replace("_", "").lower() == plain), "")
        if owner:
            found.setdefault(MethodFile(path, owner).name, MethodFile(path, owner))
    return dict(sorted(found.items()))


def shelves(methods: Mapping[str, MethodFile]) -> dict[str, list[MethodFile]]:
    """Shelf -> its methods; the shelves in the order above, then any other."""
    found: dict[str, list[MethodFile]] = {shelf: [] for shelf in SHELVES}
    for method in methods.values():
        found.setdefault(method.shelf, []).append(method)
    return {shelf: held for shelf, held in found.items() if held}


def shelf_name(shelf: str) -> str:
    return shelf.replace("_", " ").capitalize()


def display_name(method: MethodFile) -> str:
    """What the file calls itself before its first colon, as "Dr. GRPO"; else what a user types."""
    head, colon, _ = method.explanation.summary.partition(": ")
    return head if colon and len(head) <= 40 else method.name


def one_line(method: MethodFile) -> str:
    return method.explanation.summary.removeprefix(f"{display_name(method)}: ")


def navigation(methods: Mapping[str, MethodFile], guide: Iterable[str]) -> list[Any]:
    order = [f"{name}.md" for name in GUIDE]
    written = sorted(guide, key=lambda uri: (order.index(uri) if uri in order else len(order), uri))
    shelved = [{shelf_name(shelf): [f"methods/{m.name}.md" for m in held]} for shelf, held in shelves(methods).items()]
    by_level = [f"levels/{name}.md" for name in levels.NAMES]
    return [{"Start": "index.md"}, {"Guide": written}, {"Methods": ["methods/index.md", *shelved]},
            {"Family tree": "tree.md"}, {"Catalogue": "catalogue.md"}, {"Levels": ["levels/index.md", *by_level]}]


# One page per method


def method_page(method: MethodFile, methods: Mapping[str, MethodFile], rows: Mapping[str, Entry], site: Site) -> str:
    row = rows.get(method.name) or catalog.entry(method.name)
    told = method.explanation
    parts = [
        f"---\ntitle: {json.dumps(display_name(method), ensure_ascii=False)}\n"
        f"description: {json.dumps(told.summary, ensure_ascii=False)}\nsearch: {{boost: 4}}\n---",
        f"# {escape(display_name(method), quote=False)}",
        f'<p class="lede">{formula.line(one_line(method))}</p>',
        _facts(method, methods, row),
    ]
    if told.equation:
        lines = [equation.Line(text) for text in equation.lines(told.equation)]
        parts += ["## Equation", formula.equation(lines)]
    parts += _what_differs(method, methods, rows)
    parts += ["## Hyperparameters", _hyperparameters(method)]
    if told.deviations:
        parts += ["## Deviations", f'<div class="deviations">\n{formula.paragraphs(told.deviations)}\n</div>']
    if method.name in method_files.methods():
        parts += ["## Run it", f"```sh\n{command(method)}\n```"]
    parts += ["## Evidence", *_evidence(method, row, site)]
    parts += ["## The file { data-search-exclude }", _path_line(method), _code(method.path)]
    for test in own_tests(method):
        parts += ["## The test { data-search-exclude }", f"`{_from_root(test)}`", _code(test)]
    return "\n\n".join(parts) + "\n"


def _facts(method: MethodFile, methods: Mapping[str, MethodFile], row: Entry) -> str:
    citation = method.citation
    paper = escape(citation.cite)
    if citation.link.startswith("http"):
        paper = f'<a href="{escape(citation.link)}">{paper or escape(citation.link)}</a>'
    if row.title not in ("", method.explanation.summary):
        paper = f"{escape(row.title)}. {paper}"
    below = [m for m in methods.values() if plain_name(m.citation.parent) == method.name]
    facts = [
        ("name", f"<code>{method.name}</code>"),
        ("paper", paper),
        ("line", _lineage(method, methods)),
        ("changed by", ", ".join(_to_method(m.name) for m in below)),
        ("level", _level_link(row) if row.level or method.name in method_files.methods() else ""),
        ("shelf", f'<a href="../#{method.shelf}">{shelf_name(method.shelf)}</a>'
                  + (f": {SHELVES[method.shelf]}" if method.shelf in SHELVES else "")),
        ("file", f"<code>{_from_root(method.path)}</code>, {method.code_lines} lines of code"),
    ]
    told = "\n".join(f"<tr><th>{label} </th><td>{text} </td></tr>" for label, text in facts if text)
    return f'<table class="facts">\n{told}\n</table>'


def _lineage(method: MethodFile, methods: Mapping[str, MethodFile]) -> str:
    """From the first ancestor to the method; the parents that have no file yet lead to their row."""
    line, seen = [f"<strong>{method.name}</strong>"], {method.name}
    name = plain_name(method.citation.parent)
    while name and name not in seen:
        seen.add(name)
        line.insert(0, _to_method(name) if name in methods else _to_row(name))
        name = plain_name(methods[name].citation.parent) if name in methods else ""
    return " › ".join(line) if len(line) > 1 else ""


def _to_method(name: str) -> str:
    return f'<a href="../{name}/">{name}</a>'


def _to_row(name: str) -> str:
    """A name without a file: its row of the catalogue, if it has one."""
    return f'<a href="../../catalogue/#{name}">{name}</a>' if name in catalog.papers() else escape(name)


def _level_link(row: Entry) -> str:
    return f'<a href="../../levels/{levels.NAMES[row.level or 0]}/">{escape(level_name(row))}</a>'


def _what_differs(method: MethodFile, methods: Mapping[str, MethodFile], rows: Mapping[str, Entry]) -> list[str]:
    told, name = method.explanation, method.citation.parent
    parent = methods.get(plain_name(name))
    if not name:
        return ["## What is new", formula.paragraphs(told.new)] if told.new else []
    title = display_name(parent) if parent else name
    parts = [f"## What differs from {escape(title, quote=False)}", formula.paragraphs(told.new)]
    if not parent:
        return [*parts, f"<p class=\"aside\">{_to_row(plain_name(name))} has no file of its own here yet, so "
                        "there is no equation to hold this one against.</p>"]
    if changed := equation.settings_changed(method.fields, parent.fields):
        parts.append("<p>Hyperparameters: " + ", ".join(formula.line(text) for text in changed) + ".</p>")
    mine, theirs = equation.compare(told.equation, parent.explanation.equation)
    if mine and theirs:
        parts.append(
            '<div class="versus">\n'
            f'<p class="side">{_to_method(parent.name)}</p>\n{formula.equation(theirs)}\n'
            f'<p class="side"><strong>{method.name}</strong></p>\n{formula.equation(mine)}\n'
            f'<p class="legend"><span class="new">+ new</span> <span class="changed">~ changed</span> '
            '<span class="gone">− gone</span> unmarked: as in the parent</p>\n</div>')
    return parts


def _hyperparameters(method: MethodFile) -> str:
    own = {f.name for f in method.own_fields}
    head = "".join(f"<th>{h} </th>" for h in ("name", "symbol", "default", "range", "meaning", "source"))
    rows = "\n".join(_hyperparameter(f, f.name in own) for f in method.fields)
    if not rows:
        return "None."
    return (f'<div class="wide">\n<table class="hyperparameters">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n'
            "</tbody>\n</table>\n</div>")


def _hyperparameter(f: Field, own: bool) -> str:
    cells = (f"<code>{f.name}</code>", formula.symbol(f.symbol), f"<code>{escape(f.shown_default)}</code>"
             if f.shown_default else "required", escape(f.allowed, quote=False), formula.line(f.unit),
             formula.line(f.source))
    return f'<tr class="{"own" if own else "common"}">' + "".join(f"<td>{cell} </td>" for cell in cells) + "</tr>"


def _evidence(method: MethodFile, row: Entry, site: Site) -> list[str]:
    """The level, and each thing that proves it."""
    level = row.level or 0
    proofs = [f"Level **{level_name(row)}**: {LEVELS[level][0]}." if level or method.name in method_files.methods() else
              "The catalogue gives levels to methods; of a curriculum its own test tells."]
    if level >= 1:
        proofs.append(f"- runs: [tests/test_every_method.py](../levels/runs.md#the-conformance-suite), "
                      f"`pytest tests/test_every_method.py -k {method.name}`")
    proofs += [f"- pinned: [{_from_root(t)}](#the-test), `pytest {_from_root(t)}`" for t in own_tests(method)]
    if file := evidence_file(method, row):
        proofs.append(f"- shown: [{_from_root(file)}](../{site.copy(file)})")
    told = ["\n".join(proofs[:1]), "\n".join(proofs[1:])]
    return [*filter(None, told), *(_evidence_table(file) if file else [])]


def _evidence_table(file: Path) -> list[str]:
    """What the file of evidence says in single values; its lists are in the file."""
    held = json.loads(file.read_text(encoding="utf-8"))
    rows = [f"<tr><th>{escape(str(key).replace('_', ' '))}</th><td>{escape(source.show(value))}</td></tr>"
            for key, value in held.items() if isinstance(value, (str, int, float, bool))]
    return ['<table class="facts">\n' + "\n".join(rows) + "\n</table>"] if rows else []


def own_tests(method: MethodFile) -> list[Path]:
    folder = ROOT / "tests" / method.path.parent.relative_to(method_files.PACKAGE).parts[0]
    return sorted(folder.rglob(f"test_{method.path.stem}.py"))


def evidence_file(method: MethodFile, row: Entry) -> Path | None:
    """evidence/NAME.json under any spelling of the name that the catalogue takes."""
    paper = catalog.papers().get(method.name)
    names = [paper.name if paper else "", row.name, method.name, method.path.stem]
    return next((f for name in names if name and (f := ROOT / "evidence" / f"{name}.json").is_file()), None)


def _path_line(method: MethodFile) -> str:
    lines = len(method.path.read_text(encoding="utf-8").splitlines())
    return f"`{_from_root(method.path)}`: {lines} lines, {method.code_lines} of them code."


def _from_root(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _code(path: Path) -> str:
    """The whole file, highlighted, in a fence longer than any that it holds."""
    text = path.read_text(encoding="utf-8").rstrip()
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", text))])
    return f"{fence}python\n{text}\n{fence}"


# The pages over all methods


def overview(methods: Mapping[str, MethodFile], rows: Mapping[str, Entry]) -> str:
    parts = ["# Methods", f"{len(methods)} methods, each one file; shelved by what an update learns from."]
    for shelf, held in shelves(methods).items():
        parts.append(f"## {shelf_name(shelf)} {{ #{shelf} }}")
        if shelf in SHELVES:
            parts.append(SHELVES[shelf].capitalize() + ".")
        body = "\n".join(_overview_row(m, rows.get(m.name) or catalog.entry(m.name)) for m in held)
        parts.append(f'<table class="index">\n{_head("method", "what it does", "parent", "level")}\n'
                     f"<tbody>\n{body}\n</tbody>\n</table>")
    return "\n\n".join(parts) + "\n"


def _overview_row(method: MethodFile, row: Entry) -> str:
    return (f'<tr><td class="name"><a href="{method.name}/">{escape(display_name(method))}</a> </td>'
            f"<td>{formula.line(one_line(method))} </td><td>{escape(plain_name(method.citation.parent))} </td>"
            f'<td class="level">{_badge(row)}</td></tr>')


def _badge(row: Entry) -> str:
    if row.level is None:
        return '<span class="badge">–</span>'
    return f'<span class="badge level-{row.level}">{escape(level_name(row))}</span>'


def _head(*headings: str) -> str:
    return "<thead data-search-exclude><tr>" + "".join(f"<th>{h} </th>" for h in headings) + "</tr></thead>"


def tree_page(methods: Mapping[str, MethodFile], rows: Mapping[str, Entry]) -> str:
    nodes = [tree.Node(m.name, plain_name(m.citation.parent), m.citation.cite, m.explanation.summary,
                       (rows.get(m.name) or catalog.entry(m.name)).level or 0) for m in methods.values()]
    picture = tree.draw(nodes, lambda n: _tree_link(n, methods))
    legend = " ".join(f'<span class="badge level-{i}">{i} {levels.NAMES[i]}</span>' for i in (1, 2, 3))
    return (f"{ALONE}\n\n# Family tree\n\n"
            "Each method stands to the right of the one that it changes; from the top by year. Below the tree stand "
            "those that neither change a method here nor are changed by one.\n\n"
            f'<p class="legend">{legend} <span class="badge missing">no file here yet</span></p>\n\n'
            f'<div class="wide">\n{picture}\n</div>\n\n'
            "`posttrain methods --tree` prints it; `posttrain explain NAME` says what differs from the parent.\n")


def _tree_link(node: tree.Node, methods: Mapping[str, MethodFile]) -> str:
    if node.name in methods:
        return f"../methods/{node.name}/"
    return f"../catalogue/#{node.name}" if node.name in catalog.papers() else ""


def catalogue_page(rows: Iterable[Entry], methods: Mapping[str, MethodFile]) -> str:
    """Every paper with its verdict and level, by family; the search box above them is scripts/filter.js."""
    rows = sorted(rows, key=lambda e: (e.family, plain_name(e.name)))
    papers = [e for e in rows if plain_name(e.name) in catalog.papers()]
    families: dict[str, list[Entry]] = {}
    for e in rows:
        families.setdefault("foundations" if e.verdict == "foundation" else e.family, []).append(e)
    verdicts = sorted({e.verdict for e in rows})
    parts = [
        ALONE,
        "# Catalogue",
        f"{len(papers)} papers, and {len(rows) - len(papers)} methods besides that others build on. The verdicts core, "
        "recipe and system are to be built and so have a [level](levels/index.md); reference is kept for reading; out "
        "is out of scope.",
        '<form class="filter" data-rows="catalogue">\n'
        '<input type="search" name="text" placeholder="name, title, idea" aria-label="filter by text">\n'
        f"{_choice('level', [f'{i} {name}' for i, name in enumerate(levels.NAMES)])}\n{_choice('verdict', verdicts)}\n"
        '<output></output>\n</form>',
    ]
    for family, held in families.items():
        body = "\n".join(_catalogue_row(e, methods) for e in held)
        parts += [f"## {family_name(family)}",
                  f'<table class="index catalogue">\n{_head("paper", "verdict", "level")}\n'
                  f"<tbody>\n{body}\n</tbody>\n</table>"]
    return "\n\n".join(parts) + "\n"


def family_name(family: str) -> str:
    words = [w.upper() if w in ACRONYMS else w for w in family.split("-")]
    return " ".join([words[0] if words[0].isupper() else words[0].capitalize(), *words[1:]])


def _choice(name: str, values: Sequence[str]) -> str:
    options = "".join(f"<option>{escape(v)}</option>" for v in values)
    return f'<select name="{name}" aria-label="{name}"><option value="">any {name}</option>{options}</select>'


def _catalogue_row(e: Entry, methods: Mapping[str, MethodFile]) -> str:
    plain = plain_name(e.name)
    name = f'<a href="../methods/{plain}/">{escape(e.name)}</a>' if plain in methods else escape(e.name)
    level = "" if e.level is None else f"{e.level} {levels.NAMES[e.level]}"
    title = formula.line(e.title)
    return (f'<tr data-level="{level}" data-verdict="{e.verdict}"><td>'
            f'<h3 id="{plain}">{name} <span class="title">{title}</span></h3>'  # a heading: the search leads to the row
            f'<p class="idea">{formula.line(e.idea)}</p></td>'
            f'<td data-search-exclude>{e.verdict} </td><td class="level" data-search-exclude>{_badge(e)}</td></tr>')


def levels_page(rows: Iterable[Entry]) -> str:
    rows = list(rows)
    counts = [sum(e.level == i for e in rows) for i in range(len(LEVELS))]
    body = "\n".join(
        f'<tr><td class="level"><a href="{name}/"><span class="badge level-{i}">{i} {name}</span></a></td>'
        f"<td>{formula.line(LEVELS[i][0])}</td><td>{formula.line(LEVELS[i][1])}</td><td>{counts[i]}</td></tr>"
        for i, name in enumerate(levels.NAMES))
    return ("# Levels of evidence\n\nWhat is known of each method is computed from the files that exist, never typed "
            "in. A level needs the one below it.\n\n"
            f'<table class="index">\n{_head("level", "means", "proof", "rows")}\n<tbody>\n{body}\n</tbody>\n</table>\n')


def level_page(level: int, rows: Iterable[Entry], methods: Mapping[str, MethodFile]) -> str:
    meaning, proof = LEVELS[level]
    held = sorted((e for e in rows if e.level == level), key=lambda e: (e.shelf, e.family, e.name))
    parts = [f"---\ntitle: {level} {levels.NAMES[level]}\n---", f"# Level {level}: {levels.NAMES[level]}",
             f"{meaning[0].upper()}{meaning[1:]}.", proof]
    if held:
        body = "\n".join(_level_row(e, methods) for e in held)
        parts += ["## Rows", f"{len(held)} of the catalogue.",
                  f'<table class="index">\n{_head("name", "title", "shelf or family")}\n<tbody>\n{body}\n</tbody>\n'
                  "</table>"]
    else:
        parts += ["## Rows", "None yet."]
    if level == 1:
        parts += ["## The conformance suite { data-search-exclude #the-conformance-suite }",
                  f"`{levels.CONFORMANCE.as_posix()}`", _code(ROOT / levels.CONFORMANCE)]
    return "\n\n".join(parts) + "\n"


def _level_row(e: Entry, methods: Mapping[str, MethodFile]) -> str:
    plain = plain_name(e.name)
    address = f"../../methods/{plain}/" if plain in methods else f"../../catalogue/#{plain}"
    evidence = f" ({escape(e.evidence)})" if e.evidence else ""
    return (f'<tr><td class="name"><a href="{address}">{escape(e.name)}</a> </td>'
            f"<td>{escape(e.title, quote=False)}{evidence} </td><td>{escape(e.shelf or e.family)}</td></tr>")


# Pages written by hand

LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
FENCE = re.compile(r"^\s*(`{3,}|~{3,})")


def linked(text: str, folder: Path, site: Site) -> str:
    """The text with its links to files of the repository turned into links within the site.

    folder: where the text's file lies; its page stands at the top of the site.
    """
    out, fence = [], ""
    for row in text.splitlines():
        opened = FENCE.match(row)
        if opened and (not fence or opened[1].startswith(fence)):
            fence = "" if fence else opened[1]
        out.append(row if fence else LINK.sub(lambda m: m[1] + _address(m[2], folder, site) + (m[3] or "") + m[4], row))
    return "\n".join(out) + "\n"


def _address(target: str, folder: Path, site: Site) -> str:
    if re.match(r"[a-z]+:", target):
        return target
    path = Path(posixpath.normpath((folder / target).as_posix()))
    if path.is_relative_to(ROOT / "docs"):
        return path.relative_to(ROOT / "docs").as_posix()
    if path == ROOT / "README.md":
        return "index.md"
    if found := next((m for m in documented().values() if m.path == path), None):
        return f"methods/{found.name}.md"
    return site.copy(path) if path.is_file() and path.is_relative_to(ROOT) else target
