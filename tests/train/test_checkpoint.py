"""Checkpoints: whole or not there, and never at the cost of an older one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from posttrain.train import checkpoint
from posttrain.train.checkpoint import load_newest, save, steps

DATA = {"state": {"beta": 0.1, "text": "ü\u2028", "none": None}}


def tensors(value: float = 1.0) -> dict[str, Tensor]:
    return {"master": torch.full((5,), value), "bits": torch.arange(3), "half": torch.ones(2, dtype=torch.bfloat16),
            "steps": torch.tensor(7)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    path = save(tmp_path / "new", 3, tensors(), DATA, keep=2)
    assert path == tmp_path / "new" / "step-000003"
    found, complaints = load_newest(tmp_path / "new")
    assert found is not None
    assert not complaints
    assert found.step == 3
    assert found.data == {"step": 3, **DATA}
    assert set(found.tensors) == set(tensors())
    for name, value in tensors().items():
        assert found.tensors[name].dtype == value.dtype
        assert torch.equal(found.tensors[name], value)
    assert names(path) == ["manifest.json", "state.json", "state.safetensors"]


def test_nothing_there(tmp_path: Path) -> None:
    assert load_newest(tmp_path) == (None, [])
    assert load_newest(tmp_path / "missing") == (None, [])


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100000, 1000000):
        save(tmp_path, step, tensors(step), DATA, keep=2)
    assert names(tmp_path) == ["step-100000", "step-1000000"]
    found, _ = load_newest(tmp_path)
    assert found is not None
    assert found.step == 1000000
    assert float(found.tensors["master"][0]) == 1000000


def test_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        save(tmp_path, 4, tensors(value), DATA, keep=2)
    found, _ = load_newest(tmp_path)
    assert found is not None
    assert float(found.tensors["master"][0]) == 2
    assert names(tmp_path) == ["step-000004"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replace_by(path: Path, text: str | None) -> None:
    """A folder by a file of this text, or by an empty folder."""
    shutil.rmtree(path)
    if text is None:
        path.mkdir()
    else:
        path.write_text(text)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "one bit": (lambda p: flip(p / "state.safetensors"), "state.safetensors does not match its checksum"),
    "other data": (lambda p: (p / "state.json").write_text("{}"), "state.json does not match its checksum"),
    "cut short": (lambda p: (p / "state.safetensors").write_bytes(b"12"), "state.safetensors does not match"),
    "no weights": (lambda p: (p / "state.safetensors").unlink(), "FileNotFoundError"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "FileNotFoundError"),
    "half a manifest": (lambda p: (p / "manifest.json").write_text('{"state'), "JSONDecodeError"),
    "another manifest": (lambda p: (p / "manifest.json").write_text('["state.json"]'), "TypeError"),
    "empty folder": (lambda p: replace_by(p, None), "FileNotFoundError"),
    "a file": (lambda p: replace_by(p, "x"), "NotADirectoryError"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_one_is_named_and_passed_over(tmp_path: Path, kind: str) -> None:
    save(tmp_path, 1, tensors(1), DATA, keep=3)
    newest = save(tmp_path, 2, tensors(2), DATA, keep=3)
    spoil, reason = DAMAGE[kind]
    spoil(newest)
    found, complaints = load_newest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert len(complaints) == 1
    assert complaints[0].startswith(f"checkpoint {newest} is damaged ({reason}")
    assert complaints[0].endswith("using the one before")


def test_a_damaged_later_one_is_not_kept_instead_of_a_whole_one(tmp_path: Path) -> None:
    flip(save(tmp_path, 50, tensors(50), DATA, keep=1) / "state.safetensors")
    save(tmp_path, 30, tensors(30), DATA, keep=1)  # begun again, interrupted before 50
    found, complaints = load_newest(tmp_path)
    assert found is not None
    assert found.step == 30
    assert len(complaints) == 1


def test_what_a_kill_left_half_written_is_passed_over_and_cleared(tmp_path: Path) -> None:
    save(tmp_path, 1, tensors(), DATA, keep=2)
    (tmp_path / "step-2 (copy)").mkdir()  # a person's
    half = tmp_path / ".step-000002.tmp"
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"half")
    found, complaints = load_newest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert not complaints
    save(tmp_path, 2, tensors(), DATA, keep=2)
    assert names(tmp_path) == ["step-000001", "step-000002", "step-2 (copy)"]
    assert steps(tmp_path) == [1, 2]


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from posttrain.core.errors import PosttrainError
from posttrain.train.checkpoint import save
folder = Path(sys.argv[1])
save(folder, 1, {"w": torch.ones(100)}, {"state": {}}, keep=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    save(folder, 2, {"w": torch.ones(100_000)}, {"state": {}}, keep=1)
except PosttrainError as error:
    print(error)
else:
    sys.exit("nothing was raised")
"""


def test_a_disk_that_takes_no_more_leaves_the_old_one_whole(tmp_path: Path) -> None:
    """A file-size limit stands in for the full disk: the write fails in the middle of the weights."""
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"checkpoint of step 2: cannot be written to {tmp_path}: ")
    assert done.stdout.count("\n") == 1
    assert names(tmp_path) == ["step-000001"]
    found, complaints = load_newest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert not complaints


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    checkpoint.write_json(path, {"a": 1})
    checkpoint.write_json(path, {"b": "ü"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": "ü"}
    with pytest.raises(TypeError):
        checkpoint.write_json(path, {"c": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": "ü"}
