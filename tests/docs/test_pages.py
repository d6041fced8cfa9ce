"""Every method file becomes a page that says all that the file says; the whole site builds and its links hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from generator import formula, pages

from posttrain.cli import equation
from posttrain.core import catalog, levels, method_files
from posttrain.core.method_files import plain_name

ROOT = Path(__file__).resolve().parents[2]
METHODS = pages.documented()
BUILT = pages.build()


def text(page: str) -> str:
    """What a reader sees, in single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]+>", "", page)).split())


def plain(prose: str) -> str:
    return " ".join(prose.replace("`", "").split())


def page(name: str) -> str:
    return BUILT.pages[f"methods/{name}.md"].partition("## The file")[0]  # what follows quotes the file itself


def section(name: str, heading: str) -> str:
    found = re.search(rf"^## {heading}.*?$(.*?)(?=^## |\Z)", page(name), re.MULTILINE | re.DOTALL)
    assert found, f"{name} has no section {heading}"
    return text(found[1])


def test_a_page_for_every_method_file_and_for_nothing_else() -> None:
    written = {uri.removeprefix("methods/").removesuffix(".md") for uri in BUILT.pages if uri.startswith("methods/")}
    assert written - {"index"} == set(METHODS)
    assert set(method_files.methods()) <= set(METHODS)
    assert all(method.path.is_file() for method in METHODS.values())
    missing = {plain_name(e.name) for e in catalog.entries() if not e.file} - set(METHODS)
    assert missing
    assert not missing & written


@pytest.mark.parametrize("name", METHODS)
def test_the_page_holds_what_the_file_says(name: str) -> None:
    told, shown = METHODS[name].explanation, text(page(name))
    for line in equation.lines(told.equation):
        assert " ".join(line.split()) in section(name, "Equation")
    for paragraph in told.new.split("\n\n"):
        assert plain(paragraph) in section(name, "What (?:differs|is new)") or not paragraph
    for paragraph in told.deviations.split("\n\n"):
        assert not paragraph or plain(paragraph) in section(name, "Deviations")
    assert plain(told.summary) in plain(f"{pages.display_name(METHODS[name])}: {pages.one_line(METHODS[name])}") or \
        plain(told.summary) in shown
    assert plain(pages.one_line(METHODS[name])) in shown


@pytest.mark.parametrize("name", METHODS)
def test_the_page_lists_every_hyperparameter(name: str) -> None:
    told = section(name, "Hyperparameters")
    for f in METHODS[name].fields:
        row = [f.name, f.symbol, f.shown_default or "required", f.allowed, f.unit, f.source]
        assert " ".join(plain(" ".join(row)).split()) in told


@pytest.mark.parametrize("name", METHODS)
def test_the_page_shows_the_parent_proof_and_file(name: str) -> None:
    method, whole = METHODS[name], BUILT.pages[f"methods/{name}.md"]
    assert method.citation.link in whole
    assert method.path.read_text(encoding="utf-8").rstrip() in whole
    assert f"{method.code_lines} lines of code" in page(name)
    for test in pages.own_tests(method):
        assert test.read_text(encoding="utf-8").rstrip() in whole
    parent = METHODS.get(plain_name(method.citation.parent))
    if parent and parent.explanation.equation and method.explanation.equation:
        versus = page(name).partition('<div class="versus">')[2].partition("</div>")[0]
        above, _, below = versus.partition(f"<strong>{name}</strong>")
        for told, shown in ((parent, above), (method, below)):
            assert all(" ".join(line.split()) in text(shown) for line in equation.lines(told.explanation.equation))
    if name in method_files.methods():
        assert f"posttrain train {name} " in page(name)
        assert levels.NAMES[catalog.entry(name).level or 0] in section(name, "Evidence")


def test_marks_of_the_difference() -> None:
    told = page("gspo").partition('<div class="versus">')[2].partition("</div>")[0]
    assert re.findall(r'<tr class="(new|changed|gone)">', told) == ["gone", "changed", "new", "changed"]
    assert text(re.findall(r"<mark>(.*?)</mark>", told)[-1]) == "s_i"


def test_a_missing_parent_is_named_and_not_linked_to_a_page() -> None:
    lone = [m for m in METHODS.values() if m.citation.parent and plain_name(m.citation.parent) not in METHODS]
    for method in lone:
        assert "has no file of its own here yet" in page(method.name)
        assert f'href="../{plain_name(method.citation.parent)}/"' not in page(method.name)


def test_the_catalogue_has_a_row_for_every_paper_and_method() -> None:
    row = r'<tr data-level="([^"]*)" data-verdict="(\w+)"><td><h3 id="([^"]+)">'
    rows = re.findall(row, BUILT.pages["catalogue.md"])
    told = {name: (level, verdict) for level, verdict, name in rows}
    assert len(told) == len(rows)
    for e in catalog.entries():
        level = "" if e.level is None else f"{e.level} {levels.NAMES[e.level]}"
        assert told.pop(plain_name(e.name)) == (level, e.verdict)
    assert told == {}


def test_every_level_lists_its_rows() -> None:
    for level, name in enumerate(levels.NAMES):
        told = BUILT.pages[f"levels/{name}.md"]
        listed = re.findall(r'<td class="name"><a href="[^"]+">([^<]+)</a>', told)
        assert sorted(listed) == sorted(e.name for e in catalog.entries() if e.level == level)


def test_links_of_written_pages_lead_into_the_site() -> None:
    site = pages.Site()
    told = pages.linked("[a](../README.md) [b](cli.md#train) ![c](pictures/demo-addition.png) [d](https://x.org/a.md)\n"
                        "[e](../posttrain/methods/groups/gspo.py) [f](../LICENSE) [g](#here) [h](nowhere.md)\n"
                        "```\n[i](../README.md)\n```\n", ROOT / "docs", site)
    assert re.findall(r"\]\(([^)]+)\)", told) == [
        "index.md", "cli.md#train", "pictures/demo-addition.png", "https://x.org/a.md",
        "methods/gspo.md", "files/LICENSE", "#here", "nowhere.md", "../README.md"]
    assert site.copies == {"files/LICENSE": ROOT / "LICENSE"}


@pytest.mark.parametrize(("source", "html"), [
    ("ρ_it", '<i>ρ</i><span class="typed">_</span><sub><i>it</i></sub>'),
    ("π_old", '<i>π</i><span class="typed">_</span><sub>old</sub>'),
    ("e^{−2u}", '<i>e</i><span class="typed">^{</span><sup>−2<i>u</i></sup><span class="typed">}</span>'),
    ("r'_i", "<i>r</i>'" '<span class="typed">_</span><sub><i>i</i></sub>'),
    ("group's G", "group's <i>G</i>"),
    ("max(a, b) < 1e-4", 'max(<i>a</i>, <i>b</i>) &lt; <span class="number">1e-4</span>'),
])
def test_symbols(source: str, html: str) -> None:
    assert formula.symbol(source) == f'<span class="maths">{html}</span>'


def test_prose_is_escaped_and_code_left_alone() -> None:
    assert formula.line("if a < b, `kl_coef` & clip_low") == "if a &lt; b, <code>kl_coef</code> &amp; clip_low"
    assert text(formula.line("At π_old and Σ_{j ≠ i} it holds")) == "At π_old and Σ_{j ≠ i} it holds"


def test_the_generator_imports_nothing_heavy() -> None:
    script = ("import sys; sys.path.insert(0, 'docs'); from generator import pages, tree, formula; pages.build(); "
              "print([m for m in ('torch', 'transformers', 'numpy', 'mkdocs') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


class Links(HTMLParser):
    """The addresses that a page points to, and the anchors that it has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.anchors |= {held["id"]} if held.get("id") else set()
        self.links += [value for key in ("href", "src") if (value := held.get(key))]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="needs posttrain[docs]")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
                          capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_link_of_the_built_site_leads_somewhere(built: Path) -> None:
    told = {p.relative_to(built).as_posix(): Links(p.read_text(encoding="utf-8")) for p in built.rglob("*.html")}
    told.pop("404.html")  # its addresses are the server's own
    assert len(told) > len(METHODS)
    for name, held in told.items():
        for link in held.links:
            parts = urlsplit(urljoin(f"http://here/{name}", link))
            if parts.netloc != "here":
                continue
            target = unquote(parts.path.lstrip("/"))
            target += "index.html" if not target or target.endswith("/") else ""
            assert (built / target).is_file(), f"{name}: {link}"
            if parts.fragment and target in told and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in told[target].anchors, f"{name}: {link}"


def test_nothing_is_loaded_from_elsewhere(built: Path) -> None:
    """Scripts, styles, fonts and pictures are the site's own."""
    for file in [*built.rglob("*.html"), *built.rglob("*.css")]:
        told = file.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="([^"]+)"|<link[^>]+rel="(?:stylesheet|preconnect)"[^>]*>'
                            r'|url\(["\']?(?!data:)([^)"\']+)', told)
        assert not [a for found in loaded for a in found if re.match(r"(https?:)?//", a)], file
    assert (built / "fonts" / "equations.woff").stat().st_size > 5_000


def test_search_finds_methods_and_planned_papers(built: Path) -> None:
    docs = json.loads((built / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    places = {d["location"]: f"{d['title']} {d['text']}" for d in docs}
    for name in METHODS:
        assert f"methods/{name}/" in places
        assert f"methods/{name}/#the-file" not in places  # the source would drown what is said of it
    assert "pipeline" in places["levels/pinned/"]
    for e in catalog.entries():
        assert e.name in places[f"catalogue/#{plain_name(e.name)}"]
    assert "Semantic Entropy Enhanced" in places["catalogue/#seed-grpo"]
    assert "answers scatter" in places["catalogue/#seed-grpo"]
