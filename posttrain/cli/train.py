"""`posttrain train METHOD`: train a policy."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from posttrain.cli.options import Parser
from posttrain.core import catalog, method_files, source
from posttrain.core.errors import UserError
from posttrain.train.config import Config
from posttrain.train.kinds import KINDS, kind_of

if TYPE_CHECKING:
    from posttrain.cli.resolve import Plan, Stored

RUN, SAMPLING, OPTIMISER, REWARDS, CHECKS = HEADINGS = (
    "run", "sampling", "optimiser", "rewards", "evaluation, checkpoints, machine")
GROUPS = {  # the first field of each group in a class of configurations, and the group's heading
    "policy": RUN, "prompts": SAMPLING, "order": SAMPLING, "lr": OPTIMISER, "lora": OPTIMISER, "verifier": REWARDS,
    "eval_every": CHECKS, "eval_problems": CHECKS, "eval_episodes": CHECKS, "eval_pictures": CHECKS,
}


def run(arguments: Sequence[str]) -> int:
    resumed = _resumed_folder(arguments)
    named = _method_name(arguments)
    stored = _stored(resumed) if resumed is not None else None
    words = stored.config if stored else {option.lstrip("-"): value for option, value in _words(arguments)}
    chooser, name = words.get("curriculum", ""), stored.method if stored else named
    policy, task = words.get("policy", ""), words.get("task", "")
    kind = kind_of(policy, task) if policy or task else ""
    parser = make_parser(catalog.find(name) if name else None, catalog.find_curriculum(chooser) if chooser else None,
                         kind)
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

            train(plan.method, plan.config, display, resume, plan.curriculum)
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


def make_parser(method: method_files.MethodFile | None, curriculum: method_files.MethodFile | None = None,
                kind: str = "") -> Parser:
    """The parser of `posttrain train` for a kind of policy, with the options of one method and one curriculum.

    kind: empty where neither policy nor task says which; then the method's own.
    """
    kind = kind or (method.home if method else "language")
    name = method.name if method else "METHOD"
    about = method.explanation.summary if method else "Train a policy by one method."
    stated, options = method.defaults(kind) if method else {}, {f.name for g in config_groups(kind).values() for f in g}

    def held(fields: Iterable[source.Field]) -> list[source.Field]:
        """The fields with the method's defaults for this kind of policy, which the comment's source is not about."""
        return [dataclasses.replace(f, default=stated[f.name], comment=f.comment if f.name in options else f.meaning)
                if f.name in stated else f for f in fields]

    parser = Parser(f"train {name}", about, _examples(method, kind, stated.get("policy", "")))
    parser.add_argument("method", nargs="?", metavar="METHOD", help="what posttrain methods lists")
    parser.add_argument("--resume", nargs="?", const="", metavar="DIR",
                        help="go on with the run in DIR, or in --out, exactly where it stopped")
    for title, fields in config_groups(kind).items():
        parser.declare(title, held(fields))
    if method:
        common = [f for f in method.fields if f not in method.own_fields]
        parser.declare("updates per batch", held(common))
        parser.declare(f"hyperparameters of {method.name}", held(method.own_fields),
                       f"posttrain explain {method.name} shows the equation they stand in")
    else:
        parser.add_argument_group("hyperparameters", "each method has its own: posttrain train METHOD --help")
    if curriculum:
        parser.declare(f"hyperparameters of the curriculum {curriculum.name}", curriculum.fields,
                       f"posttrain explain {curriculum.name} shows the equation they stand in")
    return parser


def config_groups(kind: str) -> dict[str, list[source.Field]]:
    """The options of a kind of policy under their headings; what it says of one that every kind has counts."""
    groups: dict[str, dict[str, source.Field]] = {heading: {} for heading in HEADINGS}
    heading, home = RUN, dict[str, str]()
    for class_name in [each.__name__ for each in reversed(KINDS[kind].config.__mro__) if issubclass(each, Config)]:
        for field in source.fields(method_files.PACKAGE / "train" / "config.py", class_name):
            heading = GROUPS.get(field.name, heading)
            groups[home.setdefault(field.name, heading)][field.name] = field
    return {name: list(fields.values()) for name, fields in groups.items() if fields}


def _examples(method: method_files.MethodFile | None, kind: str, policy: str) -> list[str]:
    name = method.spec if method else "grpo"
    if kind == "control":
        task = "CartPole-v1" if policy in ("", "categorical") else "Pendulum-v1"
        return [f"posttrain train {name} --task {task} --steps 50",
                f"posttrain train {name} --task {task} --width 32 --seed 1 --out runs/narrow",
                "posttrain train --resume runs/narrow"]
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


def _stored(folder: str) -> Stored | None:
    from posttrain.cli.resolve import read_run

    return read_run(Path(folder)) if folder else None
