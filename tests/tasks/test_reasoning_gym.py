"""Every dataset of reasoning-gym: which are refused and why, gold answers, and hostile answers."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

reasoning_gym = pytest.importorskip("reasoning_gym")

from posttrain.core.errors import UserError  # noqa: E402
from posttrain.rewards.scoring import Scorer  # noqa: E402
from posttrain.tasks import Problem, load_task  # noqa: E402
from posttrain.tasks.reasoning_gym import (  # noqa: E402
    EVALUATES_FORMULAS,
    EVALUATES_LISTS,
    HASH_DEPENDENT,
    REFUSED,
    ReasoningGym,
    _problem,
    dataset_names,
    extract_answer,
)

ALLOWED = sorted(set(dataset_names()) - set(REFUSED))
UNREPEATABLE = {"codeio", "list_functions"}
WRONG = ["banana", "-7", "nan", "inf", "[]", "{}", "None", "-9,-9"]
EXECUTES = "__import__('pathlib').Path({path!r}).touch()"


def problems(dataset: str) -> list[Problem]:
    return [_problem(dataset, block=5000, position=position) for position in range(2)]


@pytest.mark.parametrize("dataset", ALLOWED)
def test_gold_scores_one_and_wrong_answers_less(dataset: str) -> None:
    task = ReasoningGym(dataset)
    for problem in problems(dataset):
        json.dumps([problem.answer, problem.data])
        assert isinstance(problem.answer, str)
        assert task.score(problem, f"I think <answer>{problem.answer}</answer> is it.") == 1.0
        assert task.score(problem, problem.answer) == 1.0
        # A short or a yes-or-no answer may be right by luck, and is then no wrong one.
        for wrong in WRONG:
            assert task.score(problem, f"<answer>{wrong}</answer>") < 1.0, wrong


def test_composite_is_no_dataset_by_itself() -> None:
    with pytest.raises(AssertionError, match="Must specify at least one dataset"):
        problems("composite")


@pytest.mark.parametrize("dataset", sorted(set(REFUSED) - UNREPEATABLE - {"composite"}))
def test_refused_datasets_are_still_broken(dataset: str) -> None:
    """When one of these fails, the package has mended the dataset: take it off the list."""
    task = ReasoningGym(dataset)
    assert all(p.answer is None or task.score(p, "banana") == 1.0 for p in problems(dataset))


def test_every_dataset_that_has_no_answer_or_a_constant_scorer_is_refused() -> None:
    for dataset in set(dataset_names()) - {"composite"}:
        task = ReasoningGym(dataset)
        broken = any(p.answer is None or task.score(p, "banana") == 1.0 for p in problems(dataset))
        assert not broken or dataset in REFUSED, dataset


@pytest.mark.parametrize("dataset", sorted(REFUSED))
def test_a_refusal_tells_its_reason(dataset: str) -> None:
    with pytest.raises(UserError) as caught:
        load_task(f"reasoning-gym/{dataset}")
    assert str(caught.value) == f"task = 'reasoning-gym/{dataset}': refused, because {REFUSED[dataset]}"


def test_hash_dependent_datasets_need_a_fixed_hash_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(UserError, match="start with the environment variable PYTHONHASHSEED=0 to use it"):
        load_task("reasoning-gym/ransom_note")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert load_task("reasoning-gym/ransom_note").name == "reasoning-gym/ransom_note"


FINGERPRINT = """
import contextlib, hashlib, io, json
from posttrain.tasks.reasoning_gym import REFUSED, _problem, dataset_names
slow = {"knight_swap": 5, "sokoban": 5, "futoshiki": 5, "puzzle24": 5, "zebra_puzzles": 5,
        "intermediate_integration": 5, "sudoku": 5, "rearc": 5}
prints = {}
for name in sorted(set(dataset_names()) - set(REFUSED) | {"codeio", "list_functions"}):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        made = [_problem(name, 7000, i) for i in range(slow.get(name, 25))]
    prints[name] = hashlib.sha256(repr(made).encode()).hexdigest()
print(json.dumps(prints))
"""


def _fingerprints(hash_seed: str) -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", FINGERPRINT], capture_output=True, text=True, timeout=300,
                          env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)})
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_which_datasets_differ_between_processes() -> None:
    first, second, again = _fingerprints("1"), _fingerprints("2"), _fingerprints("1")
    assert {name for name in first if first[name] != second[name]} == HASH_DEPENDENT | UNREPEATABLE
    assert {name for name in first if first[name] != again[name]} == UNREPEATABLE


@pytest.mark.parametrize("dataset", ["leg_counting", "coin_flip", "gsm_symbolic", "time_intervals"])
def test_train_and_heldout(dataset: str) -> None:
    task = load_task(f"reasoning-gym/{dataset}")
    heldout = task.heldout(40)
    assert heldout[:5] == task.heldout(5) == pickle.loads(pickle.dumps(task)).heldout(5)
    assert len({p.prompt for p in heldout}) == 40
    indexes = [0, 1, 2, 511, 512, 10**9]
    for seed in (0, 1):
        trained = [task.train(index, seed) for index in indexes]
        assert trained == [task.train(index, seed) for index in indexes]
        assert not {p.prompt for p in trained} & {p.prompt for p in heldout}
    assert task.train(0, 0) != task.train(0, 1)


def test_heldout_ends_where_a_dataset_does() -> None:
    # Three disks on pegs named in a few ways: some eighty prompts, a quarter of them held out.
    heldout = load_task("reasoning-gym/tower_of_hanoi").heldout(64)
    assert 5 <= len(heldout) == len({p.prompt for p in heldout}) < 64


@pytest.mark.parametrize(("completion", "answer"), [
    ("<answer> 5 </answer>", "5"), ("<answer>4</answer> no, <answer>5</answer> it is", "5"),
    ("<answer>5", "5"), ("Answer: 4\nAnswer: 5 ", "5"), (" 5\n", "5"), ("Answer: 1 <answer>5</answer>", "5"),
    ("", ""), ("<answer>" * 100_000, ""),
])
def test_extract_answer(completion: str, answer: str) -> None:
    assert extract_answer(completion) == answer


def _evaluating_scorers() -> set[str]:
    """Datasets whose score_answer hands text to eval or parse_expr, by reading the package's source."""
    found = set()
    for name, (dataset_class, _) in reasoning_gym.factory.DATASETS.items():
        source = Path(sys.modules[dataset_class.__module__].__file__ or "").read_text(encoding="utf-8")
        _, _, scorer = source.partition("def score_answer(")
        if re.search(r"\beval\((?!entry)|parse_expr\(", scorer):
            found.add(name)
    return found


def test_every_scorer_that_evaluates_text_is_known() -> None:
    assert _evaluating_scorers() - set(REFUSED) == EVALUATES_LISTS | EVALUATES_FORMULAS


@pytest.mark.parametrize("dataset", sorted(EVALUATES_LISTS | EVALUATES_FORMULAS))
def test_an_answer_never_executes(dataset: str, tmp_path: Path) -> None:
    [problem, _] = problems(dataset)
    mark = tmp_path / "executed"
    text = EXECUTES.format(path=str(mark))
    # The scorer itself would run it: that is what the guard is for.
    entry = {"question": problem.prompt, "answer": problem.answer, "metadata": problem.data["metadata"]}
    reasoning_gym.create_dataset(dataset, size=1, seed=0).score_answer(text, entry)
    assert mark.exists()
    mark.unlink()
    for answer in (text, f"[{text}]", f"1 + {text}", f"<answer>{text}</answer>"):
        assert ReasoningGym(dataset).score(problem, answer) == 0.0
    assert not mark.exists()


def test_partial_credit_to_lists_is_kept() -> None:
    [problem, _] = problems("string_insertion")
    assert ReasoningGym("string_insertion").score(problem, str(list(problem.answer))) == 0.1


def test_an_unreadable_answer_is_worth_nothing() -> None:
    # This scorer raises ValueError on text that is no number.
    [problem, _] = problems("prime_factorization")
    assert ReasoningGym("prime_factorization").score(problem, "banana") == 0.0


def test_in_a_worker_a_power_tower_times_out_and_hostile_text_scores() -> None:
    [problem, _] = problems("puzzle24")
    texts = [problem.answer, "\0", "\ud800", "(" * 1_000_000, "<answer>9**9**9**9</answer>", problem.answer]
    with Scorer(ReasoningGym("puzzle24"), timeout=2.0) as scorer:
        results = scorer([problem] * len(texts), texts)
    assert [r.value for r in results] == [1.0, 0.0, 0.0, 0.0, None, 1.0]
    assert results[4].failure == "timed out after 2 s"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(UserError, match="needs the package reasoning-gym: pip install reasoning-gym"):
        load_task("reasoning-gym/leg_counting")
    with pytest.raises(UserError, match=r"no such task; did you mean 'addition'\?"):
        load_task("adition")
