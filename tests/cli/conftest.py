"""A tiny language model, and the command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CHAT = "{% for m in messages %}{{ m['content'] }}{% endfor %}={% if add_generation_prompt %}{% endif %}"


def write_tiny_model(folder: Path) -> Path:
    """30 thousand weights in a Hugging Face folder: bytes as tokens, one layer of 32, from a fixed seed."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(["<end>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    fast.chat_template = CHAT
    config = LlamaConfig(vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64,
                         num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                         max_position_embeddings=512,
                         tie_word_embeddings=True, bos_token_id=None, eos_token_id=0, pad_token_id=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_run(tiny_model: Path, tmp_path: Path) -> list[str]:
    """Options of a run that takes a moment, in the folder `run` of the test's own."""
    return ["--policy", str(tiny_model), "--task", "addition", "--prompts", "2", "--samples", "2",
            "--threads", "1", "--max-new-tokens", "4", "--eval-problems", "4", "--out", str(tmp_path / "run")]


@pytest.fixture
def posttrain() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command as a user does."""
    def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "posttrain", *map(str, words)], capture_output=True,
                              text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment)

    return run
