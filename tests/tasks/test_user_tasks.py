"""Tasks of the user's own: what a JSONL file or a function may hold, and every way it can be wrong."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.core.errors import PosttrainError, UserError
from posttrain.rewards.scoring import Scored, Scorer
from posttrain.tasks import Problem, load_task
from posttrain.tasks.task import prompt_key
from posttrain.tasks.user.jsonl import _divide


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{n} + 1?", "answer": n + 1, "level": n % 3} for n in range(count)]


def error(*arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_task(*arguments)
    return str(caught.value)


def test_a_file_is_divided_and_scored(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "my.jsonl", rows(200)), "number")
    heldout = task.heldout(1000)
    assert 5 <= len(heldout) <= 40  # 20 ± 4.7 standard deviations of 4.2
    assert heldout[:3] == task.heldout(3)
    trained = [task.train(index, 5) for index in range(200 - len(heldout))]
    assert {p.prompt for p in trained} | {p.prompt for p in heldout} == {f"{n} + 1?" for n in range(200)}
    assert task.trusted
    for problem in [*trained, *heldout]:
        assert task.score(problem, f"That is {problem.answer}.") == 1.0
        assert task.score(problem, "That is 1000.") == 0.0
        assert set(problem.data) == {"level"}


def test_each_epoch_has_every_problem_in_an_order_of_its_own(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "my.jsonl", rows(50)), "number")
    count = 50 - len(task.heldout(50))
    epochs = [[str(task.train(epoch * count + i, seed).prompt) for i in range(count)]
              for epoch, seed in ((0, 1), (1, 1), (0, 2))]
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == count for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    again: Any = pickle.loads(pickle.dumps(task))
    assert [again.train(i, 1) for i in range(count)] == [task.train(i, 1) for i in range(count)]


@given(st.lists(st.text(min_size=1, max_size=3), min_size=2, max_size=40))
def test_a_prompt_is_on_one_side_whatever_stands_beside_it(prompts: list[str]) -> None:
    lines = {number: Problem(prompt, 1) for number, prompt in enumerate(prompts, start=1)}
    try:
        train, heldout = _divide(lines, "x")
    except UserError:  # one distinct prompt, or none that occurs once
        assert len(set(prompts)) == 1 or all(prompts.count(prompt) > 1 for prompt in prompts)
        return
    assert train
    assert heldout
    assert {**train, **heldout} == lines
    assert not {p.prompt for p in train.values()} & {p.prompt for p in heldout.values()}
    held = [p.prompt for p in heldout.values()]
    assert len(set(held)) == len(held)


def test_two_lines_are_enough(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "my.jsonl", rows(2)), "number")
    assert {task.train(0, 0).prompt, task.heldout(9)[0].prompt} == {"0 + 1?", "1 + 1?"}


def test_a_heldout_file(tmp_path: Path) -> None:
    train, heldout = write(tmp_path / "a.jsonl", rows(4)), write(tmp_path / "b.jsonl", rows(9)[4:])
    task = load_task(train, "number", heldout)
    assert {task.train(i, 0).prompt for i in range(4)} == {f"{n} + 1?" for n in range(4)}
    assert {p.prompt for p in task.heldout(9)} == {f"{n} + 1?" for n in range(4, 9)}


def test_a_chat_a_byte_order_mark_blank_lines_and_unusual_line_breaks(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a\u2028b"}]
    lines = [json.dumps({"prompt": chat, "answer": "x"}, ensure_ascii=False), "",
             json.dumps({"prompt": "y?", "answer": "x"})]
    content = "\ufeff" + "\r\n".join(lines) + "\r\n\r\n"
    (tmp_path / "my.jsonl").write_bytes(content.encode())
    task = load_task(str(tmp_path / "my.jsonl"), "exact")
    assert {prompt_key(p.prompt) for p in [task.train(0, 0), *task.heldout(2)]} == {
        json.dumps(chat, sort_keys=True), "y?"}


PROMPT_RULE = "must be a text, not empty, or a list of messages"
GOOD = '{"prompt": "a", "answer": 1}\n'


@pytest.mark.parametrize(("content", "message"), [
    (b"", "task = '{f}': the file is empty"),
    (b"\n \n", "task = '{f}': the file is empty"),
    (GOOD.encode(), "task = '{f}': has 1 distinct prompt, at least 2 are needed (one is held out)"),
    ((GOOD * 3).encode(), "task = '{f}': has 1 distinct prompt, at least 2 are needed (one is held out)"),
    ((GOOD * 2 + '{"prompt": "b", "answer": 1}\n' * 2).encode(),
     "task = '{f}': every prompt occurs on more than one line, so none can be held out; give --heldout FILE"),
    (GOOD.encode() + b"{'prompt'", "{f} line 2: not JSON: Expecting property name enclosed in double quotes: "
                                   "line 1 column 2 (char 1)"),
    (GOOD.encode() + b"[" * 100_000, "{f} line 2: not JSON: nested too deeply"),
    (GOOD.encode() + b"\n\n" + b'{"prompt": "b"}', "{f} line 4: key 'answer' is missing; it has prompt"),
    (b'{"answer": 1, "level": 2}', "{f} line 1: key 'prompt' is missing; it has answer, level"),
    (b"[1]", "{f} line 1: must be an object with prompt and answer, not list"),
    (GOOD.encode() + b'{"prompt": "\xff", "answer": 1}', "{f} line 2: not UTF-8 at byte 12 of the line"),
    (b'{"prompt": "", "answer": 1}', "{f} line 1: prompt = '': " + PROMPT_RULE),
    (b'{"prompt": 5, "answer": 1}', "{f} line 1: prompt = 5: " + PROMPT_RULE),
    (b'{"prompt": [], "answer": 1}', "{f} line 1: prompt = []: " + PROMPT_RULE),
    (b'{"prompt": [{"role": "user"}], "answer": 1}', "{f} line 1: a message of the prompt must be "
     "{{'role': text, 'content': text}}, not {{'role': 'user'}}"),
    (b'{"prompt": "a\\ud800", "answer": 1}', "{f} line 1: the prompt holds a lone surrogate at character 1"),
    (b'{"prompt": "a", "answer": "none"}',
     "{f} line 1: does not fit the verifier number: the answer 'none' holds no number"),
])
def test_a_wrong_file_is_one_line_that_says_where(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "my.jsonl"
    file.write_bytes(content)
    assert error(str(file), "number") == message.format(f=file)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "x.jsonl"
    folder.mkdir()
    assert error(str(folder), "exact") == f"task = '{folder}': cannot be read: Is a directory"
    assert error("no.jsonl", "exact") == "task = 'no.jsonl': no such file"
    good = write(tmp_path / "a.jsonl", rows(3))
    assert error(good, "number", "no.jsonl") == "heldout = 'no.jsonl': no such file"


def test_a_heldout_file_that_repeats(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", rows(4))
    twice = write(tmp_path / "b.jsonl", [*rows(6)[4:], *rows(5)[4:]])
    assert error(train, "number", twice) == f"{twice} line 3: repeats the prompt of line 1"
    shared = write(tmp_path / "c.jsonl", [*rows(5)[4:], rows(3)[2]])
    assert error(train, "number", shared) == f"{shared} line 2: its prompt is also in {train} line 3"


def test_a_verifier_that_denies_the_answer_itself(tmp_path: Path) -> None:
    file = write(tmp_path / "my.jsonl", [{"prompt": "a", "answer": ""}, {"prompt": "b", "answer": ""}])
    assert error(file, "contains") == f"{file} line 1: the verifier contains gives 0 to the answer itself, ''"


OWN = '''
import itertools
COUNTER = itertools.count()

def make(rng):
    a = rng.randint(1, 1000)
    return {"prompt": f"Double {a}", "answer": 2 * a, "a": a}

def one(rng):
    return {"prompt": "always", "answer": 1}

def impure(rng):
    return {"prompt": str(next(COUNTER)), "answer": 1}

def text(rng):
    return "prompt"

def no_answer(rng):
    return {"prompt": str(rng.random())}

def a_set(rng):
    return {"prompt": str(rng.random()), "answer": {1}}

def fails(rng):
    raise KeyError("weights")

def check(completion, answer, a):
    if completion == "hang":
        import time; time.sleep(60)
    return float(int(completion) == answer == 2 * a)

def needs_more(completion, answer, more):
    return 1.0
'''


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def test_a_function_with_its_own_verifier_in_a_worker(own: str) -> None:
    task = load_task(f"{own}:make", f"{own}:check")
    assert not task.trusted
    heldout = task.heldout(50)
    assert len({p.prompt for p in heldout}) == 50
    assert heldout[:5] == task.heldout(5)
    trained = [task.train(index, 3) for index in range(500)]
    assert trained == [task.train(index, 3) for index in range(500)] != [task.train(i, 4) for i in range(500)]
    assert not {p.prompt for p in trained} & {p.prompt for p in task.heldout(1000)}
    first = trained[0]
    with Scorer(task, timeout=1.0) as scorer:
        results = scorer([first] * 4, [str(first.answer), "0", "x", "hang"])
    unread = Scored(failure="ValueError: invalid literal for int() with base 10: 'x'")
    assert results == [Scored(1.0), Scored(0.0), unread, Scored(failure="timed out after 1 s")]


def test_a_function_by_module_name(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(own).parent))
    task = load_task("own:make", "number")
    assert task.trusted
    assert task.score(task.heldout(1)[0], f"It is {task.heldout(1)[0].answer}.") == 1.0


@pytest.mark.parametrize(("name", "verifier", "message"), [
    ("one", "number", "task = '{f}': makes too few distinct problems to hold any out"),
    ("impure", "number", "task = '{f}': gave two different problems for the same random.Random; "
                         "it must draw from that alone"),
    ("text", "number", "task '{f}': must be an object with prompt and answer, not str"),
    ("no_answer", "number", "task '{f}': key 'answer' is missing; it has prompt"),
    ("a_set", "number", "task '{f}': answer and further keys must be plain JSON data: "
                        "Object of type set is not JSON serializable"),
    ("make", "own.py:needs_more", "task = '{f}': gives no key 'more', which the verifier asks for"),
])
def test_a_wrong_function(
        own: str, monkeypatch: pytest.MonkeyPatch, name: str, verifier: str, message: str) -> None:
    monkeypatch.chdir(Path(own).parent)
    assert error(f"{own}:{name}", verifier) == message.format(f=f"{own}:{name}")


def test_a_function_that_raises(own: str) -> None:
    with pytest.raises(PosttrainError) as caught:
        load_task(f"{own}:fails", "number")
    assert str(caught.value) == f"task '{own}:fails' raised KeyError: 'weights'"


def test_a_key_that_the_verifier_needs_is_missing_on_a_line(own: str, tmp_path: Path) -> None:
    file = write(tmp_path / "my.jsonl", [{"prompt": "x", "answer": 2, "a": 1}, {"prompt": "y", "answer": 2}])
    assert error(file, f"{own}:check") == (
        f"{file} line 2: key 'a' is missing, which the verifier {own}:check asks for")
