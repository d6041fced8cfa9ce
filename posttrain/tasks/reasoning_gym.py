"""reasoning-gym/NAME: the procedural datasets of the package reasoning-gym, with their own scorers.

The answer is read from the last <answer>...</answer>, else from what follows the last "Answer:", else it is
the whole completion.  Scores are the dataset's own, partial credit included: several give 0.01 to 0.05 for
any attempt, and game_of_life gives a wrong but mostly empty board above 0.9.  An answer that a scorer
cannot read (it raises) is worth 0.

Nine scorers evaluate the answer as Python, so text that could call anything never reaches them.  Datasets
that cannot be trained on are refused, each with its reason.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from posttrain.core.errors import UserError, unknown
from posttrain.tasks.split import Split, fraction
from posttrain.tasks.task import Problem, Task, prompt_key

HELDOUT_SHARE = 0.25
_REQUEST = "\n\nPut the final answer inside <answer></answer> tags."

_NO_ANSWER = "its problems carry no answer, so its scorer cannot be checked"
_GLOBAL_GENERATOR = "its problems draw on the global random generator, so they are not the same twice"
REFUSED: dict[str, str] = {
    "boxnet": _NO_ANSWER,
    "codeio": _GLOBAL_GENERATOR,
    "composite": "it is a mixture of datasets and names none by itself",
    "game_of_life_halting": "its scorer gives full marks to any text when the answer is False",
    "graph_color": _NO_ANSWER,
    "list_functions": _GLOBAL_GENERATOR,
    "propositional_logic": _NO_ANSWER,
    "rubiks_cube": _NO_ANSWER,
    "rush_hour": _NO_ANSWER,
}
# These iterate over sets of strings while they generate.
HASH_DEPENDENT = frozenset({
    "isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder"})

# Scorers that pass the answer to eval(), for a partial credit to Python lists.
EVALUATES_LISTS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
# Scorers that pass the answer to sympy.parse_expr, which is eval() too.
EVALUATES_FORMULAS = frozenset({
    "countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"})
_LIST = re.compile(r"[\w\s\[\],'\"-]*")            # no call, no attribute, no power
_FORMULA = re.compile(r"[A-Za-z0-9\s.,()+*/^-]*")  # no quote, no underscore, no bracket
_ATTRIBUTE = re.compile(r"\.\s*[A-Za-z]")
_FUNCTIONS = frozenset({
    "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "acot", "sinh", "cosh", "tanh", "asinh",
    "acosh", "atanh", "exp", "log", "ln", "sqrt", "pi"})
_LONGEST_FORMULA = 1000                            # characters

_BLOCK = 512                # problems for each dataset object; making one can cost most of a second
_HELDOUT_BLOCKS = 2**11     # the first ones are the held-out stream's,
_TRAIN_BLOCKS = 2**21       # those after them the training's; all seeds stay below NumPy's limit of 2^32
_NOISY = frozenset({"bf"})  # prints while it generates


def task(argument: str) -> Task:
    """The dataset called `argument`.

    Raises:
        UserError: the package is missing, there is no such dataset, or it is refused.
    """
    names = dataset_names()
    if not names:
        raise UserError(f"task = 'reasoning-gym/{argument}': needs the package reasoning-gym: "
                        "pip install reasoning-gym")
    if not argument:
        raise UserError("task = 'reasoning-gym': name a dataset too, such as reasoning-gym/leg_counting")
    if argument not in names:
        unknown("task", f"reasoning-gym/{argument}", [f"reasoning-gym/{name}" for name in names])
    reason = refusal(argument)
    if reason:
        raise UserError(f"task = 'reasoning-gym/{argument}': refused, because {reason}")
    return ReasoningGym(argument)


def dataset_names() -> list[str]:
    """Every dataset of the installed package; none when it is not installed.  Takes seconds to import."""
    try:
        from reasoning_gym.factory import DATASETS
    except ModuleNotFoundError:
        return []
    return sorted(DATASETS)


def refusal(dataset: str) -> str | None:
    """Why a dataset cannot be used in this process, or None."""
    if dataset in HASH_DEPENDENT and os.environ.get("PYTHONHASHSEED", "random") == "random":
        return ("its problems depend on Python's string hashing and would differ after a resume; "
                "start with the environment variable PYTHONHASHSEED=0 to use it")
    return REFUSED.get(dataset)


@dataclass(frozen=True)
class ReasoningGym:
    """One dataset, at its default difficulty."""

    dataset: str
    trusted: bool = False  # hostile text meets sympy and eval
    defaults: Mapping[str, Any] = field(default_factory=lambda: {"max_new_tokens": 256})

    @property
    def name(self) -> str:
        return f"reasoning-gym/{self.dataset}"

    def train(self, index: int, seed: int) -> Problem:
        block, position = divmod(index, _BLOCK)
        # A run walks through consecutive blocks; each further attempt starts from a place of its own.
        starts = (int(fraction(f"{seed}/{attempt}") * _TRAIN_BLOCKS) for attempt in itertools.count())
        blocks = (_HELDOUT_BLOCKS + (start + block) % _TRAIN_BLOCKS for start in starts)
        return _SPLIT.first_for_training((_problem(self.dataset, b, position) for b in blocks), self.name)

    def heldout(self, count: int) -> list[Problem]:
        return list(_heldout(self.dataset, count))

    def gold(self, problem: Problem) -> str:
        """The answer where the prompt asks for it."""
        return f"<answer>{problem.answer}</answer>"

    def score(self, problem: Problem, completion: str) -> float:
        """The dataset's own score of the answer in the completion; 0 for an answer that it cannot read."""
        answer = extract_answer(completion)
        if answer != problem.answer and not _harmless(self.dataset, answer):
            return 0.0
        entry = {"question": problem.prompt, "answer": problem.answer, "metadata": problem.data["metadata"]}
        if self.dataset in ("arc_agi", "rearc"):
            entry["metadata"] = {**entry["metadata"], "output": _tuples(entry["metadata"]["output"])}
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return float(_dataset(self.dataset, 0).score_answer(answer, entry))
            except Exception:  # the gold answer is readable to every scorer that is not refused
                return 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self.dataset,)


def extract_answer(completion: str) -> str:
    """The answer in a completion, by the rule at the head of this file, without white space around it."""
    opening = completion.rfind("<answer>")
    if opening >= 0:
        return completion[opening + len("<answer>"):].partition("</answer>")[0].strip()
    return completion.rpartition("Answer:")[2].strip()  # all of it when "Answer:" is not there


def _harmless(dataset: str, answer: str) -> bool:
    """Whether the scorer of `dataset` may see an answer: no text that it evaluates can call anything."""
    if dataset in EVALUATES_LISTS:
        return _LIST.fullmatch(answer) is not None
    if dataset in EVALUATES_FORMULAS:
        words = re.findall(r"[A-Za-z]+", answer)
        return (len(answer) <= _LONGEST_FORMULA and _FORMULA.fullmatch(answer) is not None
                and not _ATTRIBUTE.search(answer) and all(len(w) == 1 or w in _FUNCTIONS for w in words))
    if dataset == "complex_arithmetic":  # min(1, exp(-nan)) is 1 in Python
        return "nan" not in answer.lower()
    return True


def _unpickle(dataset: str) -> ReasoningGym:
    """In a worker: make the dataset now, so that the first score does not pay for the import."""
    _dataset(dataset, 0)
    return ReasoningGym(dataset)


@functools.lru_cache(maxsize=8)
def _dataset(name: str, block: int) -> Any:
    """A dataset object that makes problems 0 .. _BLOCK - 1 of a block."""
    import reasoning_gym

    # Most datasets seed problem i with seed + i: blocks _BLOCK apart share none.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reasoning_gym.create_dataset(name, size=_BLOCK, seed=block * _BLOCK)


def _problem(name: str, block: int, position: int) -> Problem:
    quiet = contextlib.redirect_stdout(io.StringIO()) if name in _NOISY else contextlib.nullcontext()
    with quiet:
        entry = _dataset(name, block)[position]
    metadata = json.loads(json.dumps(entry["metadata"], default=str))
    return Problem(entry["question"] + _REQUEST, entry["answer"], {"metadata": metadata})


@functools.lru_cache(maxsize=8)
def _heldout(name: str, count: int) -> tuple[Problem, ...]:
    drawn = (_problem(name, i // _BLOCK, i % _BLOCK) for i in range(_HELDOUT_BLOCKS * _BLOCK))
    return tuple(_SPLIT.distinct_heldout(drawn, count))


def _tuples(grid: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    """JSON made lists of what these scorers compare with tuples."""
    return tuple(tuple(row) for row in grid)


_SPLIT = Split(HELDOUT_SHARE, lambda problem: prompt_key(problem.prompt))
