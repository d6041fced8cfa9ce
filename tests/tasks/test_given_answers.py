"""Given answers: how a file or function brings them, what is refused, and tasks of several parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.core.errors import UserError
from posttrain.rewards.scoring import Scored, Scorer
from posttrain.tasks import load_task
from posttrain.tasks.task import Given, can_score, gold, parts_of, size_of


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def file_of(folder: Path, **keys: Any) -> str:
    return write(folder / "my.jsonl", [{"prompt": f"{n}?", **keys} for n in range(6)])


@pytest.mark.parametrize(("keys", "expected"), [
    ({"chosen": "yes", "rejected": "no"}, (Given("yes", 1.0), Given("no", 0.0))),
    ({"completion": "yes"}, (Given("yes", 1.0),)),
    ({"completions": [{"text": "a", "reward": 0.25}, {"text": "b", "reward": 1, "process": 0.5}]},
     (Given("a", 0.25), Given("b", 1.0, 0.5))),
])
def test_a_file_of_answers_needs_no_verifier(tmp_path: Path, keys: dict[str, Any], expected: tuple[Given, ...]) -> None:
    task = load_task(file_of(tmp_path, **keys))
    assert not can_score(task)
    for problem in [task.train(0, 0), *task.heldout(1)]:
        assert problem.completions == expected
        assert problem.answer is None
        assert problem.data == {}
    assert size_of(task) == 6 - len(task.heldout(9))


def test_answers_beside_a_verifier(tmp_path: Path) -> None:
    task = load_task(file_of(tmp_path, answer=4, chosen="It is 4", rejected="5"), "number")
    assert can_score(task)
    problem = task.train(0, 0)
    assert [task.score(problem, given.text) for given in problem.completions] == [1.0, 0.0]
    with pytest.raises(UserError, match=r"line 1: key 'answer' is missing; it has prompt, completion"):
        load_task(file_of(tmp_path, completion="4"), "number")


@pytest.mark.parametrize(("keys", "message"), [
    ({"chosen": "a"}, "key 'rejected' is missing; a preference has chosen and rejected"),
    ({"rejected": "a", "answer": 1}, "key 'chosen' is missing; a preference has chosen and rejected"),
    ({"chosen": "a", "rejected": ""}, "rejected = '': must be a text, not empty"),
    ({"chosen": ["a"], "rejected": "b"}, "chosen = ['a']: must be a text, not empty"),
    ({"completion": "a", "chosen": "b", "rejected": "c"},
     "has both 'chosen' and 'completion'; answers are given in one way"),
    ({"completions": []}, "completions = []: must be a list, not empty, of {'text': text, 'reward': number}"),
    ({"completions": ["a"]}, "a completion must be {'text': text, 'reward': number}, not 'a'"),
    ({"completions": [{"text": "a", "reward": 2}]}, "reward = 2: must be a number in [0, 1]"),
    ({"completions": [{"text": "a", "reward": True}]}, "reward = True: must be a number in [0, 1]"),
    ({"completions": [{"text": "a", "reward": 1, "process": -1}]}, "process = -1: must be a number in [0, 1]"),
    ({"completion": "a\ud800"}, "the completion holds a lone surrogate at character 1"),
    ({"completion": "a", "part": 3}, "part = 3: must be a text"),
])
def test_wrong_answers_are_one_line(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    file = file_of(tmp_path, **keys)
    with pytest.raises(UserError) as caught:
        load_task(file)
    assert str(caught.value) == f"{file} line 1: {message}"


def test_all_lines_or_none(tmp_path: Path) -> None:
    plain = {"prompt": "b", "answer": "1"}
    file = write(tmp_path / "x.jsonl", [{"prompt": "a", "answer": "1", "completion": "1"}, plain])
    with pytest.raises(UserError, match=r"x.jsonl line 2: lacks given answers, and line 1 has; all lines or none must"):
        load_task(file, "exact")
    file = write(tmp_path / "x.jsonl", [{"prompt": "a", "answer": "1"}, plain | {"part": "p"}])
    with pytest.raises(UserError, match=r"x.jsonl line 1: lacks a part, and line 2 has; all lines or none must"):
        load_task(file, "exact")


def test_without_verifier_or_answers_nothing_can_be_learnt(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"verifier is missing: task .* or given answers in its problems"):
        load_task(file_of(tmp_path, answer=1))


def test_a_function_may_give_answers(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def make(rng):\n    n = rng.randint(0, 999)\n"
                                     "    return {'prompt': str(n), 'completion': str(n + 1)}\n"
                                     "def bare(rng):\n    return {'prompt': str(rng.random()), 'answer': 1}\n")
    task = load_task(f"{tmp_path / 'own.py'}:make")
    problem = task.train(3, 0)
    assert problem.completions == (Given(str(int(str(problem.prompt)) + 1), 1.0),)
    assert not can_score(task)
    with pytest.raises(UserError, match="verifier is missing"):
        load_task(f"{tmp_path / 'own.py'}:bare")


@pytest.mark.parametrize("name", ["addition", "word-problems", "char-addition", "retention"])
def test_the_gold_answer_earns_full_marks(name: str) -> None:
    task = load_task(name)
    for problem in task.heldout(20):
        assert task.score(problem, gold(task, problem)) == 1.0


def test_a_mixture(tmp_path: Path) -> None:
    task, parts = load_task("addition, word-problems"), [load_task("addition"), load_task("word-problems")]
    assert task.name == "addition,word-problems"
    assert list(parts_of(task)) == ["addition", "word-problems"]
    assert task.defaults == {"max_new_tokens": 128}  # the longer of 24 and 128
    assert [task.train(i, 7).prompt for i in range(6)] == [parts[i % 2].train(i // 2, 7).prompt for i in range(6)]
    heldout = task.heldout(5)
    assert [p.part for p in heldout] == ["addition"] * 3 + ["word-problems"] * 2
    assert all(task.score(problem, gold(task, problem)) == 1.0 for problem in heldout)
    own = file_of(tmp_path, answer=4)
    assert load_task(f"addition,{own}", "number").score(load_task(f"addition,{own}", "number").train(1, 0), "4") == 1.0


@pytest.mark.parametrize(("arguments", "message"), [
    (("addition,addition",), "task = 'addition,addition': names 'addition' twice"),
    (("addition,adition",), "task = 'adition': no such task; did you mean 'addition'?"),
    (("addition,retention", "number"), "verifier = 'number': none of these tasks takes one; "
                                       "only a JSONL file or a function does"),
    (("addition,retention", None, "x.jsonl"), "heldout = 'x.jsonl': only a single JSONL task takes one, "
                                              "not several tasks"),
])
def test_wrong_mixtures(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_task(*arguments)
    assert str(caught.value) == message


def test_a_mixture_scores_all_or_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task '.*my.jsonl' cannot score completions, and 'addition' can"):
        load_task(f"addition,{file_of(tmp_path, completion='x')}")


def test_parts_of_a_file(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "answer": "1", "part": "even" if n % 2 == 0 else "odd"} for n in range(40)]
    task = load_task(write(tmp_path / "my.jsonl", rows), "exact")
    parts = parts_of(task)
    assert list(parts) == ["even", "odd"]
    every = {problem.prompt for part in parts.values() for problem in [part.train(i, 0) for i in range(20)]}
    assert every == {task.train(i, 0).prompt for i in range(size_of(task) or 0)}
    assert all(int(str(parts["odd"].train(i, 0).prompt)[:-1]) % 2 for i in range(10))
    assert list(parts_of(load_task("addition"))) == ["addition"]


def test_steps_of_word_problems() -> None:
    task = load_task("word-problems")
    problem = task.train(0, 0)
    solution = problem.data["solution"]
    results = [line.split("= ")[1].split()[0].rstrip(".") for line in solution.splitlines() if "=" in line]
    assert len(results) >= 2
    scorer = Scorer(task)
    texts = [solution, "", results[0], f"so {results[-1]} after nothing"]
    scored = scorer([problem] * 4, texts)
    assert scored[0] == Scored(1.0, process=1.0)
    assert scored[1] == Scored(0.0, process=0.0)
    assert scored[2].process == 1 / len(results)
    assert results[0] == results[-1] or scored[3].process == 0.0  # a later result without the first is no step
