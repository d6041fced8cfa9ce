"""What a class of the package has of those above it, found in the files without importing them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from posttrain.core import source


def stated_defaults(path: Path, class_name: str, kind: str) -> Mapping[str, Any]:
    """The defaults of a class for a kind of policy, without importing it: literals, and `**OTHER.defaults["KIND"]`."""
    for file, name in lineage(path, class_name):
        stated = source.assigned(file, name, "defaults")
        for keyword in getattr(stated, "keywords", ()):
            if keyword.arg == kind:
                return _spread(keyword.value, file)
        if stated is not None:
            return {}
    return {}


def _spread(node: ast.Dict, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is not None:
            found[ast.literal_eval(key)] = ast.literal_eval(value)
        else:  # OTHER.defaults["KIND"]
            assert isinstance(value, ast.Subscript) and isinstance(value.value, ast.Attribute)
            other = ast.unparse(value.value.value)
            home = _imported_from(source.syntax(path), other, path)
            assert home is not None, other
            found |= stated_defaults(home, other, ast.literal_eval(value.slice))
    return found


def is_class(path: Path, name: str) -> bool:
    """Whether the file defines a class of that name."""
    return any(isinstance(n, ast.ClassDef) and n.name == name for n in source.syntax(path).body)


def lineage(path: Path, class_name: str) -> Iterable[tuple[Path, str]]:
    """(file, class) from the class up to Method, following imports within the package."""
    yield path, class_name
    tree = source.syntax(path)
    node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name)
    for base in node.bases:
        name = ast.unparse(base).partition("[")[0]
        if home := _imported_from(tree, name, path):
            yield from lineage(home, name)


def _imported_from(tree: ast.Module, name: str, path: Path) -> Path | None:
    """The file of the package that defines `name` for this one; None for what the package does not define."""
    if is_class(path, name):
        return path
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and any(a.name == name for a in node.names):
            root, *parts = (node.module or "").split(".")
            home = source.PACKAGE.joinpath(*parts)
            files = sorted(home.glob("*.py")) if home.is_dir() else [home.with_suffix(".py")]
            ours = (f for f in files if root == "posttrain" and f.is_file())
            return next((f for f in ours if is_class(f, name)), None)
    return None
