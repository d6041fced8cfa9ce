"""What a benchmark of speed or memory does before it measures and after: is the machine quiet, and where figures go.

Measured data go to evidence/NAME.json, lines of Markdown between the two marks of NAME in docs/benchmarks.md, both with
the command.  Figures that were measured with `--anyway` do not count and go nowhere.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learning import between
from versus import quiet

from posttrain.core.errors import PosttrainError

ROOT = Path(__file__).parents[1]
PAGE = "docs/benchmarks.md"


def watch(anyway: bool) -> float:
    """Cores that others use just now.

    Raises:
        PosttrainError: more than `quiet.LIMIT` of them, unless `anyway`.
    """
    load = quiet.watch()
    if load > quiet.LIMIT and not anyway:
        raise PosttrainError(f"other processes use {load:.2f} cores, more than {quiet.LIMIT:.2f}; stop them, or report "
                             "nevertheless with --anyway")
    return load


def publish(name: str, found: Mapping[str, Any], lines: Sequence[str], anyway: bool) -> None:
    """Print the lines and, unless measured with `anyway`, keep them and what was found."""
    print("\n".join(lines))
    if anyway:
        print(f"measured with --anyway: evidence/{name}.json and {PAGE} stay as they are", file=sys.stderr)
        return
    page = ROOT / PAGE
    text = between(page.read_text(encoding="utf-8"), lines, name)
    replace(ROOT / f"evidence/{name}.json", json.dumps({"command": command(sys.argv), **found}, indent=1) + "\n")
    replace(page, text)


def command(argv: Sequence[str]) -> str:
    """As it was given, of files their names alone."""
    script, *told = argv
    return " ".join(["python", f"benchmarks/{Path(script).name}",
                     *(Path(word).name if os.sep in word else word for word in told)])


def replace(path: Path, text: str) -> None:
    """A file that appears whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table."""
    assert all(len(row) == len(heads) for row in rows), rows
    head, *lines = ["| " + " | ".join(row) + " |" for row in (heads, *rows)]
    return [head, "|---" * len(heads) + "|", *lines]
