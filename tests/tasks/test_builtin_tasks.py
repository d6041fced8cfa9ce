"""addition, word-problems and retention: gold answers, disjointness, purity, and what their scorers read."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.core.errors import UserError
from posttrain.tasks import Problem, Task, load_task, task_names
from posttrain.tasks.task import prompt_key
from posttrain.tasks.word_problems import STORIES

GENERATED = ["addition", "addition-2", "addition-3", "addition-1000", "word-problems"]
HOSTILE = ["", "\0", "\ud800", "9" * 1000, "77777," * 1000, "-" * 1000]


@pytest.mark.parametrize("name", GENERATED)
@given(index=st.integers(0, 10**9), seed=st.integers(0, 10**9))
@settings(max_examples=50, deadline=None)
def test_train_is_pure_and_apart_from_heldout(name: str, index: int, seed: int) -> None:
    task = load_task(name)
    problem = task.train(index, seed)
    assert problem == load_task(name).train(index, seed)
    assert prompt_key(problem.prompt) not in {prompt_key(p.prompt) for p in task.heldout(100)}


@pytest.mark.parametrize("name", [*GENERATED, "retention"])
def test_heldout_is_fixed_distinct_and_a_prefix(name: str) -> None:
    many = load_task(name).heldout(100)
    assert many == load_task(name).heldout(100)
    assert load_task(name).heldout(7) == many[:7]
    assert len({prompt_key(p.prompt) for p in many}) == len(many) > 0
    assert load_task(name).heldout(0) == []


@pytest.mark.parametrize("name", [*GENERATED, "retention"])
def test_gold_scores_one_and_wrong_scores_zero(name: str) -> None:
    task = load_task(name)
    for problem in task.heldout(50):
        gold = problem.answer[0] if name == "retention" else str(problem.answer)
        assert task.score(problem, f"Well: {gold}.") == 1.0
        for wrong in ["zebra", f"{gold}7", *HOSTILE]:
            assert task.score(problem, wrong) == 0.0


def test_problems_are_the_same_in_another_process() -> None:
    code = ("from posttrain.tasks import load_task\n"
            "for name in ('addition', 'word-problems'):\n"
            "    t = load_task(name); print(t.train(5, 7), t.heldout(3))")
    here = [f"{t.train(5, 7)} {t.heldout(3)}" for t in (load_task("addition"), load_task("word-problems"))]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env={"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path)})
    assert done.stdout.splitlines() == here, done.stderr


@pytest.mark.parametrize("name", [*GENERATED, "retention"])
def test_tasks_pickle(name: str) -> None:
    task: Task = pickle.loads(pickle.dumps(load_task(name)))
    assert task == load_task(name)
    assert task.trusted
    assert task.defaults["max_new_tokens"] > 0


def _pairs(problems: list[Problem]) -> set[tuple[int, int]]:
    return {(p.data["a"], p.data["b"]) for p in problems}


def test_addition_divides_all_pairs() -> None:
    # 400 ordered pairs; by chance a quarter, 100 ± 3 · sqrt(400 · 0.25 · 0.75) = 100 ± 26, are held out.
    task = load_task("addition")
    heldout = _pairs(task.heldout(400))
    trained = _pairs([task.train(index, 0) for index in range(8000)])  # misses one of 300 with chance e^-21
    every = {(a, b) for a in range(1, 21) for b in range(1, 21)}
    assert 74 <= len(heldout) <= 126
    assert heldout | trained == every
    assert not heldout & trained


def test_addition_holds_out_no_answer_as_a_whole() -> None:
    task = load_task("addition")
    sums = Counter(a + b for a, b in _pairs(task.heldout(400)))
    assert all(count < min(total, 42 - total) - 1 for total, count in sums.items() if 5 <= total <= 37)


def test_addition_prompt() -> None:
    problem = load_task("addition-2").heldout(10)[0]
    a, b = problem.data["a"], problem.data["b"]
    assert problem.prompt == f"What is {a} + {b}? Answer with just the number."
    assert problem.answer == a + b


@pytest.mark.parametrize("argument", ["1", "0", "1000001", "x", "-5", "2.5", "9" * 5000, "\u0662\u0662"])
def test_addition_refuses(argument: str) -> None:
    with pytest.raises(UserError) as caught:
        load_task(f"addition-{argument}")
    assert str(caught.value) == f"task = 'addition-{argument}': N must be a whole number from 2 to 1000000"


def test_word_problem_solutions_add_up() -> None:
    task = load_task("word-problems")
    problems = [task.train(index, 3) for index in range(600)]
    for problem in problems:
        *steps, last = problem.data["solution"].splitlines()
        assert 2 <= len(steps) <= 4
        assert last == f"#### {problem.answer}"
        assert problem.answer >= 0
        results = []
        for step in steps:
            found = re.match(r"(\d+) ([-+*/]) (\d+) = (\d+)\b", step)
            assert found, step
            a, operator, b, result = found.groups()
            worked = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) / int(b)}
            assert worked[operator] == int(result), step
            results.append(int(result))
        assert results[-1] == problem.answer
        assert task.score(problem, problem.data["solution"]) == 1.0
    assert {p.data["template"] for p in problems} == {story.__name__ for story in STORIES}


def test_word_problem_numbers_are_on_one_side_only() -> None:
    task = load_task("word-problems")

    def numbers(problem: Problem) -> str:
        return f"{problem.data['template']} {problem.data['numbers']}"

    heldout = {numbers(problem) for problem in task.heldout(2000)}
    assert len(heldout) > 1000  # several names may tell the same numbers
    assert not heldout & {numbers(task.train(index, 1)) for index in range(3000)}


def test_a_word_problem_worked_by_hand() -> None:
    # 5 boxes of 4: 5 * 4 = 20; 3 given away leave 17.
    class Drawn:
        values = iter([5, 4, 3])

        def randint(self, low: int, high: int) -> int:
            return next(self.values)

    story = STORIES[0](Drawn(), "Ada", "Ben", "shells")  # type: ignore[arg-type]
    assert story.text == ("Ada has 5 boxes with 4 shells in each. Ada gives 3 shells to Ben. "
                          "How many shells does Ada have left?")
    assert story.steps == ("5 * 4 = 20 shells at first.", "20 - 3 = 17 are left.")
    assert story.answer == 17


def test_retention_covers_every_skill_evenly() -> None:
    task = load_task("retention")
    assert len(task.heldout(1000)) == 64
    assert set(Counter(p.data["skill"] for p in task.heldout(16)).values()) == {2}
    with pytest.raises(UserError, match="is for evaluation only; it has nothing to train on"):
        task.train(0, 0)


def test_retention_gives_nothing_for_an_echo() -> None:
    # "Repeat this word", "Reply with the word" and "Write one sentence about" ask for a word of the prompt; a
    # few questions hold one of their accepted answers ("yes or no").
    task = load_task("retention")
    echoed = Counter(p.data["skill"] for p in task.heldout(64) if task.score(p, str(p.prompt)))
    assert echoed == {"yes or no": 8, "instructions": 5}


def test_names_and_near_names() -> None:
    assert {"addition", "reasoning-gym", "retention", "word-problems"} <= set(task_names())
    for wrong, right in [("adition", "addition"), ("leg_counting", "reasoning-gym/leg_counting"),
                         ("word_problems", "word-problems"), ("reasoning-gym/leg_countin", None)]:
        with pytest.raises(UserError) as caught:
            load_task(wrong)
        assert str(caught.value) == (f"task = {wrong!r}: no such task; "
                                     f"did you mean {right or 'reasoning-gym/leg_counting'!r}?")


def test_wrong_combinations() -> None:
    for arguments, message in [
        (("addition", "number"), "verifier = 'number': task 'addition' scores itself; "
                                 "only a JSONL file or a function takes a verifier"),
        (("own.py", "exact"), "task = 'own.py': name the function in it too, as own.py:FUNCTION"),
        (("x.jsonl", None), "task = 'x.jsonl': no such file"),
        (("retention-5", None), "task = 'retention-5': retention takes no argument"),
        (("word-problems-5", None), "task = 'word-problems-5': word-problems takes no argument"),
        (("reasoning-gym", None), "task = 'reasoning-gym': name a dataset too, "
                                  "such as reasoning-gym/leg_counting"),
    ]:
        with pytest.raises(UserError) as caught:
            load_task(*arguments)
        assert str(caught.value) == message
    with pytest.raises(UserError, match=r"'x\.jsonl': only a JSONL task takes one, not 'addition'"):
        load_task("addition", None, "x.jsonl")
