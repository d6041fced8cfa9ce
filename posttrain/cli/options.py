"""Options from declarations: a field's type, default and comment become a flag, its checks and its help."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from posttrain.core import source
from posttrain.core.errors import UserError, nearest

OPTION = re.compile(r"--([A-Za-z][\w-]*)(=.*)?", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, exact names, `_` for `-`, and values that begin with a minus sign."""

    def __init__(self, command: str, about: str, examples: Sequence[str]) -> None:
        epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples)
        super().__init__(prog=f"posttrain {command}", usage="%(prog)s [options]", description=about,
                         epilog=epilog, allow_abbrev=False, formatter_class=_Help)
        self.declared: dict[str, source.Field] = {}

    def declare(self, title: str, fields: Iterable[source.Field], about: str = "") -> None:
        """Add one flag a field, under a heading."""
        group = self.add_argument_group(title, about or None)
        for field in fields:
            group.add_argument(field.flag, dest=field.name, action="append" if field.repeats else "store",
                               metavar=_metavar(field), help=_help(field))
            self.declared[field.name] = field

    def read(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
        """The command's own arguments, and the declared fields that were given, by name.

        Raises:
            UserError: on an unknown option, a missing value or one of the wrong type.
        """
        found = self.parse_args(list(self._spelled(arguments)))
        texts = {name: getattr(found, name) for name in self.declared}
        return found, {n: source.parse(self.declared[n], t) for n, t in texts.items() if t is not None}

    def _spelled(self, arguments: Sequence[str]) -> Iterable[str]:
        """`--a_b -1` as `--a-b=-1`, so that argparse takes the number for a value."""
        waiting = ""
        for word in arguments:
            if waiting:
                negative = re.match(r"-[\d.]", word)
                yield f"{waiting}={word}" if negative else waiting
                if negative:
                    waiting = ""
                    continue
            waiting = ""
            if option := OPTION.fullmatch(word):
                flag, value = "--" + option[1].replace("_", "-"), option[2]
                self._check_known(flag)
                if value is None:
                    waiting = flag
                    continue
                word = flag + value
            yield word
        if waiting:
            yield waiting

    def _check_known(self, flag: str) -> None:
        known = [name for name in self._option_string_actions if name.startswith("--")]
        if flag not in known:
            close = nearest(flag, known)
            hint = f"did you mean {close[0]}?" if close else f"see {self.prog} --help"
            raise UserError(f"no such option {flag}; {hint}")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size((100, 24)).columns
        super().__init__(prog, max_help_position=27, width=min(110, columns))


def _metavar(field: source.Field) -> str:
    allowed = field.allowed
    if allowed.startswith("one of"):
        return "{" + ",".join(allowed.removeprefix("one of ").split(", ")) + "}"
    words = {"whole": "N", "number": "X", "text": "TEXT", "true": "BOOL"}
    return next((m for start, m in words.items() if allowed.startswith(start)), "VALUE")


def _help(field: source.Field) -> str:
    """The comment, then the range and the default; argparse reads % as a format."""
    kind = field.allowed.removeprefix("whole number").removeprefix("number").strip()
    facts = [kind] if field.allowed.startswith(("whole", "number", "2")) and kind else []
    facts += [f"default {field.shown_default}"] if field.shown_default else []
    return (field.comment + (f" [{'; '.join(facts)}]" if facts else "")).replace("%", "%%")
