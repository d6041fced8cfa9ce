"""Conversion of a small real GGUF file, whose tensors and token ids are known by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_gguf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.policies import gguf_folder


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def folder(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("converted") / "folder"
    gguf_folder.convert(gguf, target, "float32")
    return target


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def test_weights_are_the_dequantised_ones_exactly(folder: Path) -> None:
    # The blocks were chosen so that packing loses nothing; equality also needs the rows of the query and
    # key matrices back in Hugging Face order, and no output matrix beside the tied embedding.
    stored, expected = load_file(folder / "model.safetensors"), tiny_gguf.weights()
    assert stored.keys() == expected.keys()
    assert [name for name in expected if (stored[name] != expected[name]).any()] == []


def test_bfloat16_rounds_to_the_nearest(gguf: Path, tmp_path: Path) -> None:
    gguf_folder.convert(gguf, tmp_path, "bfloat16")
    stored = load_torch(tmp_path / "model.safetensors")
    for name, values in tiny_gguf.weights().items():
        assert torch.equal(stored[name], torch.from_numpy(values).bfloat16()), name
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_missing_tensor_is_never_made_up(tmp_path: Path) -> None:
    gguf = tiny_gguf.write(tmp_path / "tiny.gguf", without="blk.0.ffn_up")
    with pytest.raises(
        ValueError, match=r"tiny\.gguf: no usable tensor for model\.layers\.0\.mlp\.up_proj\.weight$"
    ):
        gguf_folder.convert(gguf, tmp_path / "folder", "float32")


def test_config_is_that_of_the_model_and_forgets_the_file(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["rms_norm_eps"] == 1e-5  # the file holds 9.999999747378752e-06
    assert config["rope_parameters"]["rope_theta"] == 100000.0
    assert config["tie_word_embeddings"] is True
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
    assert not config.keys() & {"quantization_config", "_name_or_path", "unk_token_id"}
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == 2


def test_loads_plainly_and_computes_what_the_file_computes(gguf: Path, folder: Path) -> None:
    ids = torch.tensor([[1, 100, 5, 259, 3, 200]])
    plain: Any = AutoModelForCausalLM.from_pretrained(folder)
    packed: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    with torch.no_grad():
        logits = plain(ids).logits  # [1, 6, 260]
        assert torch.equal(logits, packed(ids).logits)
    assert logits.std() > 0.1  # the comparison is of something


def test_each_digit_stands_alone(tokenizer: Any) -> None:
    # Byte b has id 3 + b: "1" (byte 49) is 52, "7" is 58, a space (32) is 35.
    # Two spaces before a digit are one token (259).  Without the rule for digits the text would be cut
    # into "␣" and "␣17", and the merge of the two spaces could not happen.
    assert tokenizer.encode("  17") == [259, 52, 58]
    assert tokenizer.encode("7  1") == [58, 259, 52]


def test_special_tokens_are_single(tokenizer: Any) -> None:
    assert [tokenizer.encode(token) for token in tiny_gguf.SPECIAL] == [[0], [1], [2]]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.model_max_length) == (2, 2, 128)
    assert tokenizer.decode([1, 52, 2], skip_special_tokens=True) == "1"


@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=60))
def test_text_survives_encoding(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), clean_up_tokenization_spaces=False) == text


def test_chat_template_comes_along(tokenizer: Any) -> None:
    chat = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_qwen_text_is_normalised(tmp_path: Path) -> None:
    # "e" and a combining acute (U+0301) are one letter, U+00E9; its bytes 195, 169 have the ids 198, 172.
    gguf_folder.convert(tiny_gguf.write(tmp_path / "tiny.gguf", pre="qwen2"), tmp_path / "folder", "float32")
    assert AutoTokenizer.from_pretrained(tmp_path / "folder").encode("e\u0301") == [198, 172]
