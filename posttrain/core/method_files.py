"""Method files: found by walking their folders, and described from their text, without importing torch.

There is no registry.  A file `posttrain/methods/SHELF/NAME.py` is a method, `posttrain/data/curriculum/NAME.py` a
curriculum, and a user's own file a method too.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from posttrain.core import source
from posttrain.core.errors import UserError
from posttrain.core.files import load_file
from posttrain.core.lineage import is_class, lineage, stated_defaults

PACKAGE = source.PACKAGE
CURRICULUM = "curriculum"  # the shelf of what chooses problems


class Citation(NamedTuple):
    """The arguments of a file's `Paper(...)`."""

    arxiv: str = ""
    cite: str = ""
    parent: str = ""

    @property
    def link(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}" if re.match(r"[\w-]*\d{4}", self.arxiv) else self.arxiv


@dataclass(frozen=True)
class MethodFile:
    """One method, or one curriculum, as its file describes it.

    attribute: the class, or the function that returns another method with other settings.
    """

    path: Path
    attribute: str

    @property
    def name(self) -> str:
        """What a user types."""
        return self.path.stem.replace("_", "-")

    @property
    def shelf(self) -> str:
        return self.path.parent.name

    @property
    def ours(self) -> bool:
        """Whether it is the package's, and not a user's own."""
        return self.path.is_relative_to(PACKAGE)

    @property
    def spec(self) -> str:
        """What finds it again from wherever: its name, or the path of a user's own file."""
        return self.name if self.ours else str(self.path)

    @property
    def module(self) -> ModuleType:
        """
        Raises:
            UserError: if a user's own file cannot be imported.
        """
        if not self.ours:
            return load_file(self.path, str(self.path), "method")
        return importlib.import_module(".".join(("posttrain", *self.path.relative_to(PACKAGE).with_suffix("").parts)))

    @property
    def explanation(self) -> source.Explanation:
        return source.explanation(ast.get_docstring(source.syntax(self.path)) or "")

    @property
    def citation(self) -> Citation:
        """The first `Paper(...)` in the file; empty where there is none."""
        for node in ast.walk(source.syntax(self.path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Paper":
                named = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg}
                return Citation(*map(ast.literal_eval, node.args), **named)
        return Citation()

    @property
    def fields(self) -> tuple[source.Field, ...]:
        """Every hyperparameter: its own first, then those it inherits."""
        if not is_class(self.path, self.attribute):
            return source.arguments(self.path, self.attribute)
        found: dict[str, source.Field] = {}
        for path, class_name in lineage(self.path, self.attribute):
            for field in source.fields(path, class_name):
                found.setdefault(field.name, field)
        return tuple(found.values())

    @property
    def own_fields(self) -> tuple[source.Field, ...]:
        """Those that not every method has."""
        common = {f.name for f in source.fields(PACKAGE / "core" / "method.py", "Method")}
        return tuple(f for f in self.fields if f.name not in common or self.shelf == CURRICULUM)

    @property
    def classes(self) -> list[tuple[Path, str]]:
        """Its class and those above it, each with its file; none where it is a function."""
        return list(lineage(self.path, self.attribute)) if is_class(self.path, self.attribute) else []

    @property
    def home(self) -> str:
        """The kind of policy that it is shown for where nobody has said which: the first that it can train."""
        for path, class_name in self.classes:
            if kinds := source.assigned(path, class_name, "kinds"):
                return str(ast.literal_eval(kinds)[0])
            if material := source.assigned(path, class_name, "learns_from"):
                return "control" if ast.literal_eval(material) == "transitions" else "language"
        return "language"

    def defaults(self, kind: str) -> Mapping[str, Any]:
        """Its defaults for a kind of policy, of hyperparameters and of options, as its class states them."""
        return stated_defaults(self.path, self.attribute, kind) if self.classes else {}

    def stated(self, name: str) -> Any:
        """The literal that its class, or the nearest one above it, assigns to a name; None where none does."""
        values = (source.assigned(path, class_name, name) for path, class_name in self.classes)
        return next((ast.literal_eval(value) for value in values if value), None)

    @property
    def needs(self) -> set[str]:
        """The networks that its class names as needed, and those above it as far as `super().needs` reaches."""
        found: set[str] = set()
        for body in filter(None, (source.method(*each, "needs") for each in self.classes)):
            found |= {n.value for n in ast.walk(body) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
            if "super().needs" not in ast.unparse(body):
                break
        return found

    @property
    def code_lines(self) -> int:
        return source.code_lines(self.path)


def methods() -> Mapping[str, MethodFile]:
    """Every method of the package, by the name that a user types."""
    return _found(PACKAGE / "methods", "*/*.py")


def curricula() -> Mapping[str, MethodFile]:
    """Every curriculum of the package, by the name that a user types."""
    return _found(PACKAGE / "data", f"{CURRICULUM}/*.py")


def built() -> Mapping[str, MethodFile]:
    """All that has a file."""
    return {**methods(), **curricula()}


@cache
def _found(folder: Path, pattern: str) -> Mapping[str, MethodFile]:
    files = sorted(p for p in folder.glob(pattern) if not p.stem.startswith("_"))
    found = ((path, _defines(path)) for path in files)
    return {m.name: m for m in (MethodFile(path, attribute) for path, attribute in found if attribute)}


def _defines(path: Path) -> str:
    """The class or function that spells the file's stem, as `DrGRPO` in dr_grpo.py; empty if none does."""
    plain = path.stem.replace("_", "").lower()
    names = [n.name for n in source.syntax(path).body if isinstance(n, (ast.ClassDef, ast.FunctionDef))]
    return next((n for n in names if n.replace("_", "").lower() == plain), "")


def plain_name(name: str) -> str:
    """`Dr_GRPO`, `dr-grpo` and `dr_grpo` are one name; a slug's dot counts as a hyphen too."""
    return re.sub(r"[_.]", "-", name.strip().lower())


def find_own(name: str) -> MethodFile:
    """The method in a user's own file, which spells the file's name, as `MyMethod` in my_method.py.

    Raises:
        UserError: where there is no such file, or no method in it.
    """
    path = Path(name).expanduser().resolve()
    try:
        attribute = _defines(path)
    except OSError as error:
        raise UserError(f"method = {name!r}: cannot read {path}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise UserError(f"method = {name!r}: not Python: {error}") from error
    if not attribute:
        wanted = "".join(part.capitalize() for part in path.stem.split("_"))
        raise UserError(f"method = {name!r}: {path.name} defines no class or function that spells its name, as "
                        f"{wanted}")
    return MethodFile(path, attribute)
