"""A task from a JSONL file: one object a line, with `prompt`, `answer` or given answers, and what a verifier needs."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from posttrain.core.errors import UserError
from posttrain.rewards.verifiers import Verifier, as_completion, load_verifier
from posttrain.tasks.split import fraction
from posttrain.tasks.task import Problem, prompt_key
from posttrain.tasks.user.problems import problem_from, verifier_missing

HELDOUT_SHARE = 0.1
_SUFFIXES = (".jsonl", ".json", ".ndjson")

Lines = dict[int, Problem]  # line number, from 1, to the problem on that line


@dataclass(frozen=True)
class JsonlTask:
    """Problems from a file.  Training goes through all of them in a new order each time round."""

    name: str
    verifier: Verifier | None  # None: answers are given, and others cannot be scored
    train_problems: tuple[Problem, ...]
    heldout_problems: tuple[Problem, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trusted(self) -> bool:
        return self.verifier is None or self.verifier.trusted

    @property
    def scored(self) -> bool:
        return self.verifier is not None

    @property
    def size(self) -> int:
        return len(self.train_problems)

    @property
    def parts(self) -> dict[str, JsonlTask]:
        """What the lines' key `part` divides the file into; empty where there is none."""
        names = sorted({problem.part for problem in self.train_problems} - {""})
        return {name: replace(self, name=name, train_problems=_of_part(self.train_problems, name),
                              heldout_problems=_of_part(self.heldout_problems, name)) for name in names}

    def train(self, index: int, seed: int) -> Problem:
        epoch, place = divmod(index, len(self.train_problems))
        return self.train_problems[_order(len(self.train_problems), epoch, seed)[place]]

    def heldout(self, count: int) -> list[Problem]:
        return list(self.heldout_problems[:count])

    def score(self, problem: Problem, completion: str) -> float:
        """What the verifier says; whoever calls this holds it to [0, 1]."""
        assert self.verifier is not None, self.name
        result: float = self.verifier(completion, problem.answer, problem.data)
        return result


def is_file_name(name: str) -> bool:
    return name.endswith(_SUFFIXES)


def load(name: str, verifier: str | None, heldout_file: str | None) -> JsonlTask:
    """Read and check the file called `name` and, if there is one, the file of held-out problems.

    verifier: may be None where every line brings answers to learn from.

    Raises:
        UserError: naming the file and, where one is at fault, the line.
    """
    check = None if verifier is None else load_verifier(verifier)
    lines = _read(name, "task", check)
    if heldout_file is None:
        train, heldout = _divide(lines, name)
    else:
        heldout = _read(heldout_file, "heldout", check)
        _refuse_repeats(heldout, lines, heldout_file, name)
        train = lines
    if check is None and not next(iter(train.values())).completions:
        raise verifier_missing(name)
    ordered = sorted(heldout.values(), key=lambda problem: fraction(prompt_key(problem.prompt)))
    return JsonlTask(name, check, tuple(train.values()), tuple(ordered))


def _of_part(problems: tuple[Problem, ...], name: str) -> tuple[Problem, ...]:
    return tuple(problem for problem in problems if problem.part == name)


@functools.lru_cache(maxsize=64)
def _order(count: int, epoch: int, seed: int) -> list[int]:
    order = list(range(count))
    Random(f"{seed}/{epoch}").shuffle(order)
    return order


def _read(name: str, option: str, verifier: Verifier | None) -> Lines:
    """Every problem of a file by its line number; blank lines are passed over."""
    path = Path(name)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{option} = {name!r}: no such file") from error
    except OSError as error:
        raise UserError(f"{option} = {name!r}: cannot be read: {error.strerror}") from error
    lines = {}
    # Not str.splitlines(): a JSON text may hold U+2028 and other marks that it would split at.
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            lines[number] = _problem(line, f"{name} line {number}", verifier)
    if not lines:
        raise UserError(f"{option} = {name!r}: the file is empty")
    _check_alike(lines, name)
    return lines


def _check_alike(lines: Lines, name: str) -> None:
    """Either every line brings answers, or none; and so with parts."""
    (start, first), *others = lines.items()
    for number, problem in others:
        for what, mine, theirs in (("given answers", problem.completions, first.completions),
                                   ("a part", problem.part, first.part)):
            if bool(mine) != bool(theirs):
                have, lack = (number, start) if mine else (start, number)
                raise UserError(f"{name} line {lack}: lacks {what}, and line {have} has; all lines or none must")


def _problem(line: bytes, where: str, verifier: Verifier | None) -> Problem:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 at byte {error.start} of the line") from error
    except RecursionError as error:
        raise UserError(f"{where}: not JSON: nested too deeply") from error
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {error}") from error
    problem = problem_from(row, where, scored=verifier is not None)
    if verifier is None:
        return problem
    for key in verifier.required:
        if key not in problem.data:
            raise UserError(f"{where}: key {key!r} is missing, which the verifier {verifier.spec} asks for")
    if verifier.trusted:
        _check_gold(problem, where, verifier)
    return problem


def _check_gold(problem: Problem, where: str, verifier: Verifier) -> None:
    """A verifier that denies full marks to the answer itself does not fit the file."""
    try:
        value = verifier(as_completion(problem.answer), problem.answer, problem.data)
    except ValueError as error:
        raise UserError(f"{where}: does not fit the verifier {verifier.spec}: {error}") from error
    if value != 1.0:
        raise UserError(f"{where}: the verifier {verifier.spec} gives {value:g} to the answer itself, "
                        f"{problem.answer!r:.60}")


def _divide(lines: Lines, name: str) -> tuple[Lines, Lines]:
    """(training, held out): a tenth of the distinct prompts, by hash, and at least one on either side.

    A prompt on several lines stays in training: held out, it would be one problem with several answers.
    """
    count = Counter(prompt_key(problem.prompt) for problem in lines.values())
    if len(count) < 2:
        raise UserError(f"task = {name!r}: has 1 distinct prompt, at least 2 are needed (one is held out)")
    single = sorted((key for key in count if count[key] == 1), key=fraction)
    if not single:
        raise UserError(f"task = {name!r}: every prompt occurs on more than one line, "
                        "so none can be held out; give --heldout FILE")
    below = [key for key in single if fraction(key) < HELDOUT_SHARE] or single[:1]
    chosen = set(below[:len(count) - 1])
    train = {number: problem for number, problem in lines.items() if prompt_key(problem.prompt) not in chosen}
    return train, {number: problem for number, problem in lines.items() if number not in train}


def _refuse_repeats(heldout: Lines, train: Lines, heldout_file: str, name: str) -> None:
    trained = {prompt_key(problem.prompt): number for number, problem in train.items()}
    seen: dict[str, int] = {}
    for number, problem in heldout.items():
        key = prompt_key(problem.prompt)
        if key in seen:
            raise UserError(f"{heldout_file} line {number}: repeats the prompt of line {seen[key]}")
        if key in trained:
            raise UserError(f"{heldout_file} line {number}: its prompt is also in {name} line {trained[key]}")
        seen[key] = number
