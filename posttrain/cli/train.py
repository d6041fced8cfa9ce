"""`posttrain train METHOD`: train a policy."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from posttrain.cli.options import Parser
from posttrain.core import catalog, source
from posttrain.core.errors import UserError

if TYPE_CHECKING:
    from posttrain.cli.resolve import Plan

GROUPS = {  # the first field of each group in Config, and the group's heading
    "policy": "run",
    "prompts": "sampling",
    "lr": "optimiser",
    "verifier": "rewards",
    "eval_every": "evaluation, checkpoints, machine",
}


def run(arguments: Sequence[str]) -> int:
    resumed = _resumed_folder(arguments)
    named = _method_name(arguments)
    stored = _stored_method(resumed) if resumed is not None else ""
    parser = make_parser(catalog.find(stored or named) if stored or named else None)
    found, given = parser.read(arguments)
    if resumed is None and not found.method:
        raise UserError("METHOD is missing, as in posttrain train grpo; posttrain methods lists them")

    from posttrain.cli.resolve import resolve, resume_from

    if resumed is not None:
        given.pop("out", None)
        plan = resume_from(resumed, found.method or "", given)
    else:
        plan = resolve(found.method, given)
    return _train(plan, resumed is not None)


def _train(plan: Plan, resume: bool) -> int:
    from posttrain.cli import progress

    try:
        with _terminable(), progress.choose(plan.title) as display:
            from posttrain.train.run import train  # takes seconds, in which the display is up already

            train(plan.method, plan.config, display, resume)
    except KeyboardInterrupt:
        folder = plan.config.out
        what = f"resume with: posttrain train --resume {folder}" if (Path(folder) / "config.json").is_file() \
            else "nothing was written"
        raise KeyboardInterrupt(f"interrupted; {what}") from None
    return 0


@contextmanager
def _terminable() -> Iterator[None]:
    """Take a scheduler's SIGTERM like Ctrl-C: stop, resumably."""
    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def make_parser(method: catalog.MethodFile | None) -> Parser:
    """The parser of `posttrain train`, with the options of one method where it is known."""
    name = method.name if method else "METHOD"
    about = method.explanation.summary if method else "Train a policy by one method."
    parser = Parser(f"train {name}", about, _examples(method))
    parser.add_argument("method", nargs="?", metavar="METHOD", help="what posttrain methods lists")
    parser.add_argument("--resume", nargs="?", const="", metavar="DIR",
                        help="go on with the run in DIR, or in --out, exactly where it stopped")
    for title, fields in config_groups():
        parser.declare(title, fields)
    if method:
        common = [f for f in method.fields if f not in method.own_fields]
        parser.declare("updates per batch", common)
        parser.declare(f"hyperparameters of {method.name}", method.own_fields,
                       f"posttrain explain {method.name} shows the equation they stand in")
    else:
        parser.add_argument_group("hyperparameters", "each method has its own: posttrain train METHOD --help")
    return parser


def config_groups() -> list[tuple[str, list[source.Field]]]:
    """The fields of Config under their headings, in order."""
    groups: list[tuple[str, list[source.Field]]] = []
    for field in source.fields(catalog.PACKAGE / "train" / "config.py", "Config"):
        if field.name in GROUPS:
            groups.append((GROUPS[field.name], []))
        groups[-1][1].append(field)
    return groups


def _examples(method: catalog.MethodFile | None) -> list[str]:
    name = method.name if method else "grpo"
    number = next((f for f in method.own_fields if isinstance(f.default, float)), None) if method else None
    return [
        f"posttrain train {name} --policy smollm2-135m --task addition --steps 60",
        f"posttrain train {name} --task problems.jsonl --verifier rewards.py:score --out runs/mine"
        if number is None else
        f"posttrain train {name} {number.flag} {number.default / 2:g} --seed 1 --out runs/half",
        "posttrain train --resume runs/mine",
    ]


def _words(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, value) pairs; a word on its own has the option ""."""
    option = ""
    for word in arguments:
        if word.startswith("-") and len(word) > 1 and not word[1].isdigit():
            if option:
                yield option, ""
            option = word
            if "=" in word or word in ("-h", "--help"):
                yield word.partition("=")[0], word.partition("=")[2]
                option = ""
        else:
            yield option, word
            option = ""
    if option:
        yield option, ""


def _method_name(arguments: Sequence[str]) -> str:
    return next((word for option, word in _words(arguments) if not option), "")


def _resumed_folder(arguments: Sequence[str]) -> str | None:
    """The folder to resume: --resume's own value, else --out's; None without --resume."""
    values = dict(_words(arguments))
    if "--resume" not in values:
        return None
    return values["--resume"] or values.get("--out", "")


def _stored_method(folder: str) -> str:
    from posttrain.cli.resolve import read_run

    return read_run(Path(folder))[0] if folder else ""
