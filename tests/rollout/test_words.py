"""Bad words and biases written as text reach the tokens that are sampled."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_folder import write_tiny_folder
from transformers import AutoTokenizer

import posttrain
from posttrain.core.errors import UserError
from posttrain.rollout.words import bad_words, logit_bias
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
