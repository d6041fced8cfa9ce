"""The catalogue: every method file and every paper that `papers.jsonl` names, found and made by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from posttrain.core import levels
from posttrain.core.errors import UserError, nearest, unknown
from posttrain.core.levels import SEVERAL
from posttrain.core.method_files import PACKAGE, MethodFile, built, curricula, find_own, methods, plain_name

if TYPE_CHECKING:
    from posttrain.core.curriculum import Curriculum
    from posttrain.core.method import Method

PAPERS = PACKAGE / "core" / "papers.jsonl"
BUILT_VERDICTS = ("core", "recipe", "system")  # the rows that are to be built, and so have a level


def find(name: str) -> MethodFile:
    """The method of that name, or in that file of a user's own.

    Raises:
        UserError: for a paper that is not built yet, or a name that is neither; the nearest one is named.
    """
    if name.endswith(".py"):
        return find_own(name)
    plain = plain_name(name)
    if found := methods().get(plain):
        return found
    if plain in curricula():
        raise UserError(f"method = {name!r}: a curriculum, which a method takes as --curriculum {plain}")
    if plain in SEVERAL:
        raise UserError(f"method = {name!r}: the paper has several, {', '.join(SEVERAL[plain])}; name one")
    if plain in papers():
        raise UserError(f"method = {name!r}: in the catalogue, not built yet; see posttrain explain {name}")
    unknown("method", name, methods())


def find_curriculum(name: str) -> MethodFile:
    """The curriculum of that name.

    Raises:
        UserError: if there is none.
    """
    if found := curricula().get(plain_name(name)):
        return found
    unknown("curriculum", name, curricula())


def load(name: str) -> Callable[..., Method[Any]]:
    """Import the method of that name: its class, or the function that makes it."""
    made: Callable[..., Method[Any]] = _imported(find(name))
    return made


def _imported(found: MethodFile) -> Any:
    return getattr(found.module, found.attribute)


def make_curriculum(name: str, **hyperparameters: Any) -> Curriculum:
    """The curriculum with these hyperparameters, the others at their defaults.

    Raises:
        UserError: on a name or a hyperparameter that there is not, or a value out of range.
    """
    found = find_curriculum(name)
    for given in hyperparameters:
        if given not in (allowed := [f.name for f in found.fields]):
            unknown(f"hyperparameter of {found.name}", given, allowed)
    made: Curriculum = _imported(found)(**hyperparameters)
    return made


def make(name: str, **hyperparameters: Any) -> Method[Any]:
    """The method with these hyperparameters, the others at their defaults.

    Raises:
        UserError: on a hyperparameter that the method lacks, or a value out of range.
    """
    allowed = [f.name for f in find(name).fields]
    for given in hyperparameters:
        if given not in allowed:
            unknown(f"hyperparameter of {find(name).name}", given, allowed)
    return load(name)(**hyperparameters)


@dataclass(frozen=True)
class Entry:
    """A row of the catalogue.

    verdict: core, recipe, system: to be built; reference, out: not; foundation: a method that is no row.
    level: 0..3; None where nothing is to be built.
    evidence: the verdict of level 3: reproduced, not reproduced, inconclusive.
    file: path from the package's parent folder; empty while there is none.
    """

    name: str
    title: str
    verdict: str
    family: str
    kind: str
    idea: str
    level: int | None = None
    evidence: str = ""
    shelf: str = ""
    cite: str = ""
    parent: str = ""
    file: str = ""


@cache
def papers() -> Mapping[str, Entry]:
    """The papers as catalogued, by name, without what the package has made of them."""
    rows = [json.loads(line) for line in PAPERS.read_text(encoding="utf-8").splitlines()]
    return {plain_name(r["slug"]): Entry(name=r.pop("slug"), **r) for r in rows}


def entries() -> list[Entry]:
    """Every row and every method, methods first, by name."""
    made = {name: _with_method(papers().get(name), method) for name, method in built().items()}
    made |= {name: _with_several(papers()[name], name) for name in SEVERAL}
    known = levels.current()
    rows = [_with_level(entry, known) for entry in ({**papers(), **made}).values()]
    return sorted(rows, key=lambda e: (not e.file, e.name))


def entry(name: str) -> Entry:
    """The row or method of that name.

    Raises:
        UserError: naming the nearest.
    """
    plain = plain_name(name)
    if name.endswith(".py"):
        return _with_method(None, find_own(name))
    if plain in built():
        return _with_level(_with_method(papers().get(plain), built()[plain]), levels.current())
    if plain in SEVERAL:
        return _with_level(_with_several(papers()[plain], plain), levels.current())
    if plain in papers():
        return _with_level(papers()[plain], {})
    close = nearest(plain, sorted({*built(), *papers()}), 3)
    hint = f"did you mean {' or '.join(close)}?" if close else "posttrain methods lists all"
    raise UserError(f"name = {name!r}: neither a method nor a catalogued paper; {hint}")


def files(name: str) -> list[MethodFile]:
    """The file of the row or method of that name; several where a paper has several, none while it is not built."""
    if name.endswith(".py"):
        return [find_own(name)]
    return [built()[part] for part in SEVERAL.get(plain_name(name), (plain_name(name),)) if part in built()]


def _with_method(row: Entry | None, method: MethodFile) -> Entry:
    made = row or Entry(method.name, method.explanation.summary, "foundation", method.shelf, "method", "")
    return replace(made, name=method.name, shelf=method.shelf, cite=method.citation.cite,
                   parent=method.citation.parent,
                   file=str(method.path.relative_to(PACKAGE.parent) if method.ours else method.path))


def _with_several(row: Entry, plain: str) -> Entry:
    """A paper whose methods have files of their own."""
    parts = [built()[name] for name in SEVERAL[plain]]
    files = ", ".join(str(part.path.relative_to(PACKAGE.parent)) for part in parts)
    first = parts[0]
    return replace(row, shelf=first.shelf, cite=first.citation.cite, parent=first.citation.parent, file=files)


def _with_level(row: Entry, known: Mapping[str, Mapping[str, Any]]) -> Entry:
    if not row.file and row.verdict not in BUILT_VERDICTS:
        return row
    proof = known.get(plain_name(row.name), {})
    return replace(row, level=proof.get("level", 0), evidence=proof.get("evidence", ""))
