"""What the commands that measure have in common: options, what they look up before they begin, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from posttrain.core.errors import PosttrainError, UserError
from posttrain.nets.architecture import Architecture, Unsupported, read_architecture
from versus import quiet
from versus.side import Side, environment

MACHINE_SECONDS = 300.0
TRIES = 3  # at a size that others disturb
S, T = TypeVar("S"), TypeVar("T")


def options(text: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every command; text: its module's."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="smollm2-135m", help="as in posttrain train (%(default)s)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto",
                        help="auto: bf16 where the processor multiplies it, else fp32")
    parser.add_argument("--threads", type=positive, default=0, help="of each side (one per core)")
    parser.add_argument("--timeout", type=positive, default=1800, help="seconds for one turn (%(default)s)")
    parser.add_argument("--anyway", action="store_true", help="print figures although other processes are at work")
    return parser


def positive(text: str) -> int:
    """A whole number ≥ 1, for argparse."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def exit_code(name: str, work: Callable[[], None]) -> int:
    """0: measured; 1: not measured, for one reason on standard error; 2: wrong use; 130: interrupted."""
    try:
        work()
    except PosttrainError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def each(sizes: Iterable[S], measure: Callable[[S], T]) -> tuple[list[T], list[str]]:
    """What was found of every size, and a line for each of which nothing could be.

    Raises:
        PosttrainError: nothing was found of the first, which says that something is wrong with all.
    """
    found, missing = list[T](), list[str]()
    for size in sizes:
        try:
            found.append(undisturbed(measure, size))
        except UserError:
            raise
        except PosttrainError as reason:
            if not found:
                raise
            missing.append(f"Not measured: {size}: {reason}.")
            print(missing[-1], file=sys.stderr, flush=True)
    return found, missing


def undisturbed(measure: Callable[[S], T], size: S) -> T:
    """What is found at a size in the first of TRIES attempts that others left alone.

    Raises:
        Disturbed: they left none alone.
    """
    for _ in range(TRIES - 1):
        with contextlib.suppress(quiet.Disturbed):
            return measure(size)
    return measure(size)


def require(*packages: str) -> None:
    """
    Raises:
        PosttrainError: naming what is not installed, and how to get it.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise PosttrainError(f"not installed: {', '.join(missing)}; pip install -e '.[benchmarks]'")


def architecture(policy: str, folder: Path) -> Architecture:
    """The model's sizes.

    Raises:
        UserError: posttrain has no fast path for it, so that there is nothing to measure.
    """
    from transformers import AutoConfig

    try:
        return read_architecture(AutoConfig.from_pretrained(folder, local_files_only=True).to_dict())
    except Unsupported as reason:
        raise UserError(f"policy = {policy!r}: {reason}") from None


def inspect(precision: str, threads: int) -> dict[str, Any]:
    """What this machine is, and the versions that matter."""
    command = [sys.executable, "-m", "versus.machine", precision, str(threads)]
    found = subprocess.run(command, env=environment(threads), stdout=subprocess.PIPE, timeout=MACHINE_SECONDS,
                           check=False, text=True)
    if found.returncode:
        raise PosttrainError(f"the machine could not be measured (exit code {found.returncode}, see above)")
    return {**json.loads(found.stdout), **versions("trl", "transformers")}


def versions(*packages: str) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def one_step(side: Side, timeout: float) -> dict[str, Any]:
    """A side's report of its next step, with the load that others caused meanwhile, in cores."""
    before = quiet.usage()
    report: dict[str, Any] = side.step(timeout)
    return {**report, "others": quiet.others(before, quiet.usage())}
