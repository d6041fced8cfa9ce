"""An ONNX file as an exporter leaves it becomes named weights; a file that is none is refused in one line."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posttrain.core.errors import PosttrainError
from posttrain.policies import onnx_folder, packaged

onnx = pytest.importorskip("onnx")

CONV = "network.input_blocks.3.0.in_layers.2"


def write(file: Path, conv: str = CONV) -> Path:
    """silu is left out: a norm without its name, times (1, 2) plus (3, 4), and a named convolution after it."""
    def constant(name: str, values: Any) -> Any:
        return onnx.numpy_helper.from_array(np.asarray(values, dtype=np.float32), name)

    node = onnx.helper.make_node
    nodes = [node("Mul", ["x", "val_1"], ["scaled"]), node("Add", ["scaled", "val_2"], ["normed"]),
             node("Conv", ["normed", f"{conv}.weight", f"{conv}.bias"], ["out"])]
    weights = [constant("val_1", [[[1]], [[2]]]), constant("val_2", [[[3]], [[4]]]),
               constant(f"{conv}.weight", np.arange(2).reshape(1, 2, 1, 1)), constant(f"{conv}.bias", [7])]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "g", [value("x", 1, [1, 2, 4, 4])], [value("out", 1, [1, 1, 4, 4])], weights)
    onnx.save(onnx.helper.make_model(graph), str(file))
    return file


def test_a_norm_is_named_after_the_convolution_that_follows_it(tmp_path: Path) -> None:
    found = onnx_folder.read(write(tmp_path / "model.onnx"))
    assert {name: x.flatten().tolist() for name, x in found.items()} == {
        "input_blocks.3.0.in_layers.2.weight": [0, 1], "input_blocks.3.0.in_layers.2.bias": [7],
        "input_blocks.3.0.in_layers.0.weight": [1, 2], "input_blocks.3.0.in_layers.0.bias": [3, 4]}


@pytest.mark.parametrize(("theirs", "ours"), [
    ("time_embed.0.weight", "when.0.weight"), ("label_emb.2.bias", "what.2.bias"),
    ("input_blocks.0.0.weight", "into.weight"), ("input_blocks.11.1.proj_out.bias", "down.10.1.out.bias"),
    ("middle_block.2.out_layers.0.weight", "middle.2.between.weight"),
    ("output_blocks.4.0.skip_connection.weight", "up.4.0.skip.weight"), ("out.2.weight", "last.2.weight"),
])
def test_names(theirs: str, ours: str) -> None:
    assert onnx_folder.ours(theirs) == f"net.unet.{ours}"


@pytest.mark.parametrize(("contents", "reason"), [
    (b"\xff" * 100, "not an ONNX file"), (b"", "no weight has a name that begins with network."),
    (None, "a norm before input_blocks.0.0, which has none")])
def test_a_file_that_is_not_the_model_is_refused_in_one_line(contents: bytes | None, reason: str, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """By the whole fetch but for the download; None: a real file whose convolution cannot have a norm."""
    def assemble(model: Any, joined: Path, say: Any) -> None:
        if contents is None:
            write(joined, "network.input_blocks.0.0")
        else:
            joined.write_bytes(contents)

    monkeypatch.setenv("POSTTRAIN_HOME", str(tmp_path))
    monkeypatch.setattr(packaged, "assemble", assemble)
    with pytest.raises(PosttrainError) as failure:
        packaged.fetch("terrain", lambda line: None)
    assert str(failure.value).startswith("terrain: conversion failed: ValueError: model.onnx: " + reason)
    assert "\n" not in str(failure.value)
    assert not list((tmp_path / "models").glob("terrain*"))


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'posttrain\[images\]'"):
        onnx_folder.read(tmp_path / "model.onnx")


def test_a_cut_download_is_refused_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of the right name whose data is not what was pinned."""
    def download(wheel: Any, folder: Path, seconds: float) -> Path:
        folder.mkdir()
        with zipfile.ZipFile(folder / "cut.whl", "w") as archive:
            archive.writestr(wheel.member, b"cut")
        return folder / "cut.whl"

    monkeypatch.setenv("POSTTRAIN_HOME", str(tmp_path))
    monkeypatch.setattr(packaged, "download", download)
    with pytest.raises(PosttrainError, match=f"expected 95be.*, got {hashlib.sha256(b'cut').hexdigest()}"):
        packaged.fetch("terrain", lambda line: None)
