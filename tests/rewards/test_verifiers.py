"""Built-in verifiers on completions read by hand, and on hostile ones; finding verifiers by name and path."""

from __future__ import annotations

import pickle
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.core.errors import UserError
from posttrain.rewards.verifiers import as_completion, load_verifier, verifier_names
from posttrain.rewards.verifiers.number import last_number

HOSTILE = ["", "\0", "\ud800", "\u2028\x1b[2J", "a" * 1_000_000, "[" * 100_000, "9" * 1_000_000,
           "1," * 300_000, "1,111" * 100_000, "answer " * 100_000, "```" * 100_000,
           "\u0664\u0662", "-" * 100_000, "NaN"]
GOLD = {"exact": "New York", "number": 42, "contains": ["blue", "azure"], "choice": "B",
        "math": "\\frac{1}{2}", "json_equal": {"a": [1, None, True]}}


def score(verifier: str, completion: str, answer: Any) -> Any:
    return load_verifier(verifier)(completion, answer, {})


@pytest.mark.parametrize(("completion", "answer", "expected"), [
    ("  new\n YORK ", "New York", 1), ("New York.", "New York", 0), ("stra\u00dfe", "STRASSE", 1),
    ("42", 42, 1),
])
def test_exact(completion: str, answer: Any, expected: int) -> None:
    assert score("exact", completion, answer) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("27", 27), ("27.", 27), ("27.0", 27), ("= 1,234", 1234), ("1,234,567.5 kg", Decimal("1234567.5")),
    ("1, 2, 3", 3), ("it is -5", -5), ("20-5", 5), ("(3)-5", 5), ("x = +5", 5), ("\u22127", -7),
    ("**27**", 27), ("#### 12", 12), ("12 + 15 = 27, done", 27), (".5", Decimal("0.5")), ("2.5e3", 2500),
    ("$5", 5), ("3/4", 4),
    ("12,34", 34), ("1,2345", 2345), ("none", None), ("", None), ("\u0664\u0662", None), ("9" * 1000, None),
])
def test_last_number(text: str, expected: Any) -> None:
    assert last_number(text) == expected


@pytest.mark.parametrize(("completion", "answer", "expected"), [
    ("27", 27, 1), ("28", 27, 0), ("27 or 28", 27, 0), ("none", 27, 0), ("1,200", "1200", 1),
    ("72", "so #### 72", 1),
    ("10000001", 10000000, 0),                            # whole numbers have no tolerance
    ("0.33333333", 1 / 3, 1), ("0.3333", 1 / 3, 0),       # off by 1e-8 and by 1e-4, relative
    ("27", "27.0", 1), ("0", 0, 1), ("0.0000001", 0, 0), ("1e9999", 5, 0), ("1e9999", 0.5, 0),
])
def test_number(completion: str, answer: Any, expected: int) -> None:
    assert score("number", completion, answer) == expected


@given(st.integers(-10**12, 10**12), st.sampled_from(["{}", "{:,}", "is {}.", "a 5 b {} c", "**{:,}**\n"]))
def test_number_reads_every_whole_number(value: int, layout: str) -> None:
    assert score("number", layout.format(value), value) == 1.0
    assert score("number", layout.format(value), value + 1) == 0.0


@pytest.mark.parametrize(("completion", "answer", "expected"), [
    ("It is BLUE!", "blue", 1), ("bluebird", "blue", 0), ("thank\nyou.", ["thanks", "thank you"], 1),
    ("a (b) c", "(b)", 1), ("anything", "", 0), ("x.y", "x?y", 0),
])
def test_contains(completion: str, answer: Any, expected: int) -> None:
    assert score("contains", completion, answer) == expected


@pytest.mark.parametrize(("completion", "expected"), [
    ("B", 1), ("b)", 1), ("(B)", 1), ("The answer is B.", 1), ("answer: **B**", 1),
    ("B because A is wrong", 0),
    ("A is wrong, so B", 1), ("The answer is B. A good choice!", 1), ("option (b)", 1), ("Bees", 0), ("A", 0),
    ("I can't say", 0), ("", 0), ("a bird", 0),
])
def test_choice_b(completion: str, expected: int) -> None:
    assert score("choice", completion, "b") == expected


@pytest.mark.parametrize(("completion", "answer", "expected"), [
    ('{"b": 2, "a": 1}', {"a": 1, "b": 2.0}, 1), ('{"a": true}', {"a": 1}, 0), ("[1, 2]", [2, 1], 0),
    ('Here:\n```json\n{"a": [1]}\n```\nDone.', '{"a": [1]}', 1), ("not json", None, 0), ("null", None, 1),
    ('"x"', "x", 1), ("x", "x", 0), ("NaN", 1, 0), ("[1]", [1, 2], 0), ('{"a": 1, "b": 2}', {"a": 1}, 0),
])
def test_json_equal(completion: str, answer: Any, expected: int) -> None:
    assert score("json_equal", completion, answer) == expected


@pytest.mark.parametrize(("completion", "answer", "expected"), [
    ("so $\\frac{2}{4}$", "\\frac{1}{2}", 1), ("\\boxed{0.5}", "1/2", 1), ("It is 3.", "\\frac{1}{2}", 0),
    ("$x^2 + 2x + 1$", "$(x+1)^2$", 1), ("", "2", 0),
])
def test_math(completion: str, answer: Any, expected: int) -> None:
    pytest.importorskip("math_verify")
    assert score("math", completion, answer) == expected


@pytest.mark.parametrize("name", verifier_names())
def test_gold_scores_one_and_a_wrong_answer_does_not(name: str) -> None:
    if name == "math":
        pytest.importorskip("math_verify")
    gold = as_completion(GOLD[name])
    assert score(name, gold, GOLD[name]) == 1.0
    assert score(name, "zebra 7", GOLD[name]) == 0.0


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:6]))
@pytest.mark.parametrize("name", sorted(set(verifier_names()) - {"math"}))
def test_hostile_text_scores_zero(name: str, text: str) -> None:
    assert score(name, text, GOLD[name]) == 0.0


@given(st.text(st.characters(), max_size=200))
def test_no_text_raises(text: str) -> None:
    for name in sorted(set(verifier_names()) - {"math"}):
        assert score(name, text, GOLD[name]) in (0.0, 1.0)


@pytest.mark.parametrize(("name", "answer", "message"), [
    ("number", "none", "the answer 'none' holds no number"),
    ("number", True, "the answer True holds no number"),
    ("choice", "E", "the answer 'E' is not one of A, B, C, D"),
])
def test_an_answer_that_does_not_fit(name: str, answer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        score(name, "1", answer)


def test_names_and_trust() -> None:
    assert verifier_names() == ["choice", "contains", "exact", "json_equal", "math", "number"]
    assert load_verifier("json-equal").spec == "json_equal"
    assert load_verifier("number").trusted
    with pytest.raises(UserError, match=r"verifier = 'numbr': no such verifier; did you mean 'number'\?"):
        load_verifier("numbr")


def test_math_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)  # what an import of a missing package meets
    monkeypatch.delitem(sys.modules, "posttrain.rewards.verifiers.math", raising=False)
    with pytest.raises(UserError) as caught:
        load_verifier("math")
    assert str(caught.value) == "verifier = 'math': needs the package math-verify: pip install math-verify"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.py"
    file.write_text(
        "def two(completion, answer): return completion == answer\n"
        "def three(completion, answer, bonus): return bonus\n"
        "def optional(completion, answer, bonus=0.25): return bonus\n"
        "def every(completion, answer, **data): return len(data)\n"
        "def anything(*args, **data): return len(args) + len(data)\n"
        "def one(completion): return 1.0\n"
        "def late(prompt, completion, answer): return 1.0\n")
    return file


@pytest.mark.parametrize(("name", "expected"), [
    ("two", True), ("three", 0.5), ("optional", 0.5), ("every", 2), ("anything", 5)])
def test_a_verifier_gets_the_keys_that_it_asks_for(own: Path, name: str, expected: float) -> None:
    verifier = load_verifier(f"{own}:{name}")
    data = {"bonus": 0.5, "other": 1, "completion": "a key that collides with the first parameter"}
    assert not verifier.trusted
    assert verifier("x", "x", data) == expected
    assert pickle.loads(pickle.dumps(verifier))("x", "x", data) == expected


def test_a_file_is_found_from_anywhere_once_loaded(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own.parent)
    verifier = load_verifier("own.py:two")
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(verifier))("x", "x", {})


@pytest.mark.parametrize(("spec", "message"), [
    ("{own}:twoo", "{own} has no function 'twoo'; did you mean 'two'?"),
    ("{own}:one", "must take (completion, answer), and optionally **data"),
    ("{own}:late", "must take (completion, answer) first, whatever it calls them, and then keys of the problem, as "
                   "prompt; answer comes too late"),
    ("{own}x.py:two", "no such file {own}x.py"),
    ("no_such_module:f", "importing it failed: ModuleNotFoundError: No module named 'no_such_module'"),
    (":f", "must be module:function or file.py:function"),
    ("json:", "must be module:function or file.py:function"),
])
def test_what_is_wrong_with_an_import_path(own: Path, spec: str, message: str) -> None:
    spec = spec.format(own=own)
    with pytest.raises(UserError) as caught:
        load_verifier(spec)
    assert str(caught.value) == f"verifier = {spec!r}: {message.format(own=own)}"


def test_a_file_that_fails_to_import(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UserError, match="importing it failed: ZeroDivisionError: division by zero"):
        load_verifier(f"{tmp_path / 'broken.py'}:f")
