"""A saved policy is a folder that transformers loads to the same model, and nothing is overwritten."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from safetensors.torch import load_file
from tiny_models import own_model, save_model
from torch import Tensor

from posttrain.core.errors import UserError
from posttrain.policies.export import export, new_folder
from posttrain.policies.load import load_language_model

IDS = torch.tensor([[0, 5, 6, 7, 8]])


def logits(folder: Path) -> Tensor:
    with torch.no_grad():
        out: Tensor = own_model(folder)(IDS).logits
    return out


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3_text", "phi3"])
def test_saving_what_was_loaded_changes_nothing(kind: str, tmp_path: Path) -> None:
    source = save_model(tmp_path / "m", kind)
    (source / "posttrain-source.json").write_text("{}")
    target = load_language_model(source, max_new_tokens=4, precision="fp32").policy.save(tmp_path / "final")
    kept, first = load_file(target / "model.safetensors"), load_file(source / "model.safetensors")
    assert kept.keys() == first.keys()
    assert all(torch.equal(kept[name], first[name]) for name in first)
    assert torch.equal(logits(target), logits(source))
    assert (target / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert not (target / "posttrain-source.json").exists()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_export_in_bf16(kind: str, tmp_path: Path) -> None:
    source, run = save_model(tmp_path / "m", kind), tmp_path / "run"
    load_language_model(source, max_new_tokens=4, precision="fp32").policy.save(run / "final")
    target = export(run, tmp_path / "exported")
    config = json.loads((target / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert "torch_dtype" not in config
    first = load_file(source / "model.safetensors")
    for name, tensor in load_file(target / "model.safetensors").items():
        assert torch.equal(tensor, first[name].bfloat16())
    assert own_model(target).dtype == torch.bfloat16
    exact = export(run, tmp_path / "exact", "fp32")
    assert torch.equal(logits(exact), logits(source))


def test_exports_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished policy"):
        export(tmp_path / "nothing", tmp_path / "exported")
    run = tmp_path / "run"
    source = save_model(tmp_path / "m", "llama")
    load_language_model(source, max_new_tokens=4, precision="fp32").policy.save(run / "final")
    with pytest.raises(UserError, match="precision = 'fp8': must be one of fp32, bf16"):
        export(run, tmp_path / "exported", "fp8")
    with pytest.raises(UserError, match="exists already"):
        export(run, run)
    assert not (tmp_path / "exported").exists()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "new") as folder:
            (folder / "part").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert not (tmp_path / "new").exists()
    with new_folder(tmp_path / "new") as folder:
        (folder / "whole").write_text("all")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["whole"]
