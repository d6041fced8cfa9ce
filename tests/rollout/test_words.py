"""Bad words and biases written as text reach the tokens that are sampled."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_folder import write_tiny_folder
from transformers import AutoTokenizer

import posttrain
from posttrain.core.errors import UserError
from posttrain.rollout.words import bad_words, completes, logit_bias
from posttrain.train.folder import RunFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("policy"))


def test_words_with_and_without_a_space(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    a, b, space, end = (tokenizer.convert_tokens_to_ids(t) for t in ("a", "b", "Ġ", "<eos>"))
    assert bad_words(tokenizer, ("ab", "a", "ab")) == ((a, b), (space, a, b), (a,), (space, a))
    assert bad_words(tokenizer, ("<eos>",))[0] == (end,)
    assert logit_bias(tokenizer, ("a=-2.5", " =1", "==3", "<eos>=-1e2")) == (
        (a, -2.5), (space, 1.0), (tokenizer.convert_tokens_to_ids("="), 3.0), (end, -100.0))


@pytest.mark.parametrize(("texts", "message"), [
    (("a",), "logit_bias = 'a': must be a token's text and a number, as in ' maybe=-2.5'"),
    (("a=b",), "logit_bias = 'a=b': must be a token's text and a number, as in ' maybe=-2.5'"),
    (("ab=1",), "logit_bias = 'ab=1': 'ab' must be one token, and is 2: 'a', 'b'"),
    (("=1",), "logit_bias = '=1': '' must be one token, and is 0: none"),
])
def test_biases_that_cannot_be(folder: Path, texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        logit_bias(AutoTokenizer.from_pretrained(folder), texts)
    assert str(caught.value) == message
    with pytest.raises(UserError, match="bad_words = '': has no tokens"):
        bad_words(AutoTokenizer.from_pretrained(folder), ("",))


@pytest.mark.parametrize("stop", ["7é", "語", "a b", "b7é語a b 1", "é"])
def test_a_stop_string_ends_where_the_whole_text_would(folder: Path, stop: str) -> None:
    """A token is a byte here, so that é takes two and 語 three: the text of half a sign is another one's."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "xé語 語é" * 40 + "ab7é語a b 12"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    longest = 0

    def decode(tokens: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(tokens))
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    end = next(i for i in range(1, len(ids) + 1) if stop in decode(ids[:i]))
    longest = 0
    assert not any(completes(decode, ids[:i], ("never", stop)) for i in range(1, end))
    assert longest < 100  # of 600: a long completion costs no more than a short one
    assert completes(decode, ids[:end], ("never", stop))


def test_a_run_obeys_them(folder: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    posttrain.train("grpo", policy=str(folder), task="addition", steps=1, prompts=2, samples=8, eval_problems=2,
                    max_new_tokens=12, precision="fp32", out=str(tmp_path / "run"), bad_words=("a", "bc"),
                    logit_bias=("b=6", "c=6"), min_p=0.5)
    files = sorted(RunFolder(tmp_path / "run").rollouts.iterdir())
    texts = [t for file in files for t in pyarrow.parquet.read_table(file)["completion"].to_pylist()]
    assert len(texts) == 16
    assert all(t and set(t) <= {"b", "c"} and "bc" not in t for t in texts)
    assert set("".join(texts)) == {"b", "c"}
