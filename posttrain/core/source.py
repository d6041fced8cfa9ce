"""What a Python file says of itself, read without importing it: fields, docstring, size.

A field of a configuration reads `name: Type = default  # symbol, unit; where the default comes from`, so that
the declaration is also the help text.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Interval, Le, Lt

from posttrain.core import types
from posttrain.core.errors import UserError, nearest

PACKAGE = Path(__file__).resolve().parent.parent
REQUIRED = object()  # the default of a field that has none


@dataclass(frozen=True)
class Field:
    """One annotated field of a dataclass.

    hint: the annotation as a typing object; None where it names something that only its own file knows.
    default: REQUIRED, a value, or the source text of an expression that is no literal.
    comment: the whole trailing comment; `symbol`, `unit` and `source` are its parts.
    """

    name: str
    hint: Any
    default: Any
    comment: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def meaning(self) -> str:
        """The comment before the semicolon."""
        return self.comment.partition(";")[0].strip()

    @property
    def symbol(self) -> str:
        """The sign that the equation uses: the comment's first word where it is no English word."""
        first = re.split(r"[,;\s]", self.comment, maxsplit=1)[0]
        return first if len(first) == 1 or not first.isascii() or "_" in first else ""

    @property
    def unit(self) -> str:
        return self.meaning.removeprefix(self.symbol).lstrip(" ,")

    @property
    def source(self) -> str:
        return self.comment.partition(";")[2].strip()

    @property
    def allowed(self) -> str:
        return describe(self.hint)

    @property
    def repeats(self) -> bool:
        """Whether it holds any number of texts, given by repeating the flag."""
        return ... in typing.get_args(self.hint)

    @property
    def shown_default(self) -> str:
        return "" if self.default is REQUIRED else show(self.default)


def show(value: Any) -> str:
    """A value as it would be typed on the command line."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(show, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe(hint: Any) -> str:
    """What a type allows, in words: "number ≥ 0", "one of linear, cosine"."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return " ".join([describe(args[0]), " and ".join(_bounds(args[1:]))])
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin is tuple:
        return "text, may be repeated" if ... in args else f"{len(args)} numbers, as in 1,2"
    if type(None) in args:
        return f"{describe(next(a for a in args if a is not type(None)))}, or none"
    return {int: "whole number", float: "number", bool: "true or false", str: "text"}.get(hint, "value")


def _bounds(metadata: Sequence[Any]) -> list[str]:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return [f"{sign} {getattr(m, key):g}" for m in metadata if isinstance(m, (Ge, Gt, Le, Lt, Interval))
            for key, sign in signs.items() if getattr(m, key, None) is not None]


def parse(field: Field, text: str | list[str]) -> Any:
    """The value that `text`, or a repeated field's texts, mean; its range is held by the dataclass itself.

    Raises:
        UserError: naming the field, the text and what is allowed.
    """
    if isinstance(text, list):
        return tuple(part.replace("\\n", "\n").replace("\\t", "\t") for part in text)
    try:
        return _parse(field.hint, text)
    except (ValueError, SyntaxError, OverflowError):
        options = [str(a) for a in typing.get_args(field.hint) if isinstance(a, (str, int))]
        close = nearest(text, options)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"{field.name} = {text!r}: must be {_article(field.allowed)}{hint}") from None


def _article(allowed: str) -> str:
    return f"a {allowed}" if allowed.startswith(("whole", "number")) else allowed


def _parse(hint: Any, text: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _parse(args[0], text)
    if origin is typing.Literal:
        return next(a for a in args if str(a) == text) if text in map(str, args) else _refuse()
    if origin is tuple:
        parts = text.split(",")
        return tuple(_parse(a, p) for a, p in zip(args, parts, strict=True))
    if type(None) in args:
        return None if text.lower() == "none" else _parse(next(a for a in args if a is not type(None)), text)
    if hint is bool:
        return text.lower() == "true" if text.lower() in ("true", "false") else _refuse()
    if hint is int:
        return int(text) if re.fullmatch(r"[+-]?[\d_]+", text) else _whole(float(text))
    if hint is float or hint is str:
        return hint(text)
    return ast.literal_eval(text)


def _whole(number: float) -> int:
    return int(number) if number == int(number) else _refuse()


def _refuse() -> typing.NoReturn:
    raise ValueError


@cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def comments(path: Path) -> dict[int, str]:
    """Line number -> the comment that ends it."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return {t.start[0]: t.string.lstrip("# ").rstrip() for t in tokens if t.type == tokenize.COMMENT}


def fields(path: Path, class_name: str) -> tuple[Field, ...]:
    """The annotated fields of one class of the file, in order, without those that it inherits."""
    node = next(n for n in syntax(path).body if isinstance(n, ast.ClassDef) and n.name == class_name)
    return tuple(_field(path, n.target.id, n.annotation, n.value, n.end_lineno or n.lineno)
                 for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
                 and "ClassVar" not in ast.unparse(n.annotation))


def assigned(path: Path, class_name: str, name: str) -> ast.expr | None:
    """What one class of the file assigns to a name without annotation; None where it does not."""
    node = next(n for n in syntax(path).body if isinstance(n, ast.ClassDef) and n.name == class_name)
    return next((n.value for n in node.body if isinstance(n, ast.Assign)
                 and any(isinstance(t, ast.Name) and t.id == name for t in n.targets)), None)


def method(path: Path, class_name: str, name: str) -> ast.Return | None:
    """What a method of one class of the file returns; None where the class has none of that name."""
    node = next(n for n in syntax(path).body if isinstance(n, ast.ClassDef) and n.name == class_name)
    body = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == name), None)
    return None if body is None else next(n for n in ast.walk(body) if isinstance(n, ast.Return))


def arguments(path: Path, function: str) -> tuple[Field, ...]:
    """The keyword arguments of one function of the file, as fields."""
    node = next(n for n in syntax(path).body if isinstance(n, ast.FunctionDef) and n.name == function)
    pairs = list(zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True))
    plain = node.args.args
    missing = len(plain) - len(node.args.defaults)
    pairs += list(zip(plain, [None] * missing + list(node.args.defaults), strict=True))
    return tuple(_field(path, a.arg, a.annotation, d, (d or a).end_lineno or a.lineno) for a, d in pairs)


def _field(path: Path, name: str, annotation: ast.expr | None, value: ast.expr | None, line: int) -> Field:
    return Field(name, _hint(annotation), _default(value), comments(path).get(line, ""))


def _hint(annotation: ast.expr | None) -> Any:
    """The annotation as a typing object, in the names of `core.types`; None for a name of the file's own."""
    if annotation is None:
        return None
    try:
        return eval(ast.unparse(annotation), {"Literal": typing.Literal, **vars(types)})
    except (NameError, TypeError, AttributeError):
        return None


def _default(value: ast.expr | None) -> Any:
    if value is None:
        return REQUIRED
    try:
        return ast.literal_eval(value)
    except ValueError:
        return ast.unparse(value)


@dataclass(frozen=True)
class Explanation:
    """The parts of a method file's docstring."""

    summary: str
    equation: str
    new: str
    deviations: str


def explanation(docstring: str) -> Explanation:
    """Split a docstring: first paragraph, the indented equation, what is new, what deviates."""
    paragraphs = re.split(r"\n\s*\n", docstring.strip())
    equation = [p for p in paragraphs[1:] if p.startswith("    ")]
    prose = [p.strip() for p in paragraphs[1:] if not p.startswith("    ")]
    start = next((i for i, p in enumerate(prose) if p.startswith("Deviation")), len(prose))
    deviations = re.sub(r"^Deviations?:\s*", "", "\n\n".join(prose[start:]))
    summary, new = " ".join(paragraphs[0].split()), "\n\n".join(prose[:start])
    return Explanation(summary, "\n\n".join(equation), new, deviations)


def code_lines(path: Path) -> int:
    """Lines that hold code: neither blank, nor only a comment, nor a docstring."""
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
               tokenize.ENCODING, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    held = {line for t in tokens if t.type not in skipped for line in range(t.start[0], t.end[0] + 1)}
    return len(held - _docstring_lines(syntax(path)))


def _docstring_lines(tree: ast.Module) -> set[int]:
    owners = [n for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    first = [n.body[0] for n in owners if n.body and ast.get_docstring(n) is not None]
    return {line for n in first for line in range(n.lineno, (n.end_lineno or n.lineno) + 1)}
