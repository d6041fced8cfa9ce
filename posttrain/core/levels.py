"""How well each method is shown to work, computed from which files exist, never typed in:

    0 planned   named in the catalogue
    1 runs      the file exists, and the conformance suite that takes in every method, or every curriculum
    2 pinned    its own test exists, tests/methods/**/test_NAME.py or tests/data/curriculum/test_NAME.py
    3 shown     evidence/NAME.json exists and holds a verdict

An installed package has neither tests nor evidence; its build (hatch_build.py) writes what they prove to `levels.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from posttrain.core.method_files import PACKAGE, curricula, methods, plain_name

LEVELS = PACKAGE / "core" / "levels.json"
CONFORMANCE = Path("tests", "test_every_method.py")
SUITES = (  # of methods and of curricula: what finds them, their conformance suite, and where their own tests are
    (methods, CONFORMANCE, Path("tests", "methods")),
    (curricula, Path("tests", "test_every_curriculum.py"), Path("tests", "data", "curriculum")),
)
SEVERAL = {"clip-cov-kl-cov": ("clip-cov", "kl-cov")}  # papers that are several methods; their level is the lowest
NAMES = ("planned", "runs", "pinned", "shown")


@cache
def current() -> Mapping[str, Mapping[str, Any]]:
    """Computed in a checkout; in an installed package, what `levels.json` recorded."""
    if (PACKAGE.parent / CONFORMANCE).is_file():
        return compute(PACKAGE.parent)
    levels: dict[str, dict[str, Any]] = json.loads(LEVELS.read_text(encoding="utf-8"))
    return levels


def compute(root: Path) -> dict[str, dict[str, Any]]:
    """Name -> level, and its evidence's verdict, from the files under `root`; a level needs the one below."""
    found: dict[str, dict[str, Any]] = {}
    for made, conformance, folder in SUITES:
        if not (root / conformance).is_file():
            continue
        tests = {p.stem for p in (root / folder).rglob("test_*.py")}
        for name, method in made().items():
            found[name] = {"level": 1}
            if f"test_{method.path.stem}" in tests:
                found[name] = {"level": 2}
                if verdict := _evidence(root, name):
                    found[name] = {"level": 3, "evidence": verdict}
    lowest = {paper: min((found.get(name, {"level": 0}) for name in names), key=lambda proof: proof["level"])
              for paper, names in SEVERAL.items() if found}
    return found | lowest


def _evidence(root: Path, name: str) -> str:
    """The verdict in evidence/NAME.json; empty if there is none."""
    files = (file for file in sorted((root / "evidence").glob("*.json")) if plain_name(file.stem) == name)
    return next((str(json.loads(file.read_text(encoding="utf-8")).get("verdict", "")) for file in files), "")


def text() -> str:
    """What `levels.json` should hold now."""
    levels = compute(PACKAGE.parent)
    rows = (f"  {json.dumps(name)}: {json.dumps(proof)}" for name, proof in levels.items())
    return "{\n" + ",\n".join(rows) + "\n}\n"

