"""Write a policy as a Hugging Face folder that any tool can load."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from posttrain.core.errors import UserError
from posttrain.nets.hf_weights import to_hf
from posttrain.nets.transformer import Transformer
from posttrain.policies.adapters import write_adapter

ADAPTER = "adapter"  # folder inside a saved policy
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
WEIGHTS = ("model", "pytorch_model", "posttrain")  # first words of files that hold weights or our own notes


def save_pretrained(net: Transformer, source: Path, target: Path) -> Path:
    """The net's weights, adapters folded in, with the configuration and tokenizer of `source`.

    Adapters are also written apart, in `target`/adapter, as peft reads them.

    Raises:
        UserError: if `target` exists.
    """
    with new_folder(target) as folder, torch.no_grad():
        save_file(named_weights(net), folder / "model.safetensors", metadata={"format": "pt"})
        copy_companions(source, folder, net.head.dtype)
        if net.lora:
            write_adapter(net, source, folder / ADAPTER)
    return target


@torch.no_grad()
def named_weights(net: Transformer) -> dict[str, Tensor]:
    """The net's weights under Hugging Face's names, adapters folded in."""
    return to_hf(net.arch, {name: net.merged(name).detach() for name, _ in net.named_weights()})


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write in, flushed and renamed to `target` at the end: that appears whole or not at all.

    Raises:
        UserError: if `target` exists.
    """
    if target.exists():
        raise UserError(f"folder = '{target}': exists already; name another one")
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    for path in temporary.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    os.replace(temporary, target)


def copy_companions(source: Path, target: Path, dtype: torch.dtype) -> None:
    """Configuration (with the type of the weights), tokenizer and templates; no weights."""
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith(WEIGHTS) and path.name != "config.json":
            shutil.copy(path, target / path.name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)  # the older spelling
    config["dtype"] = str(dtype).removeprefix("torch.")
    (target / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def export(run: Path, target: Path, precision: str = "bf16") -> Path:
    """The final policy of a run, in this precision.

    Raises:
        UserError: if the run has no final policy, or `target` exists, or the precision is unknown.
    """
    final = run / "final"
    if not (final / "model.safetensors").exists():
        raise UserError(f"run = '{run}': holds no finished policy (no {final.name}/model.safetensors)")
    if precision not in TYPES:
        raise UserError(f"precision = {precision!r}: must be one of {', '.join(TYPES)}")
    dtype = TYPES[precision]
    with new_folder(target) as folder:
        tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor
                   for name, tensor in load_file(final / "model.safetensors").items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        copy_companions(final, folder, dtype)
    return target


def copy(final: Path, target: Path) -> Path:
    """A policy's folder, as it is.

    Raises:
        UserError: if `target` exists.
    """
    with new_folder(target) as folder:
        for path in final.iterdir():
            shutil.copy(path, folder / path.name)
    return target
