"""Does a long run leak?  Resident memory, open files and threads over 1,000 real steps of `posttrain train grpo`.

    pip install -e ".[benchmarks]"
    python benchmarks/leak.py

The tiny model, the loop of the library itself in this process, with evaluations and checkpoints on the way; what the
process holds is noted every `--every` steps, as it is found and once more after garbage is collected and the
allocator's free pages are given back.  The verdict is the slope of the latter over the last 80% of the notes: free
pages that are written to for the first time look like growth, and nobody holds them.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from published import markdown, publish
from seeds import machine
from versus.command import exit_code, positive, require

from posttrain.core.errors import PosttrainError
from posttrain.train.display import Display

MIB = 2**20
WARM = 0.2  # of the notes, in which caches and pools still fill
FEWEST = 8  # notes that a slope and its spread can be told from
OPTIONS: dict[str, Any] = {
    "policy": "tiny-char", "task": "char-addition", "precision": "fp32", "threads": 1, "prompts": 4, "samples": 4,
    "kl_coef": 0.0, "eval_problems": 50,
}


class Note(NamedTuple):
    """What the process holds after so many steps."""

    step: int
    resident: int  # bytes, as found
    held: int  # bytes that stay resident without garbage and free pages
    files: int  # open descriptors
    threads: int


class Notes(Display):
    """Takes one every so many steps."""

    def __init__(self, every: int) -> None:
        import psutil

        self.every, self.process, self.kept = every, psutil.Process(), list[Note]()

    def step(self, step: int, metrics: Mapping[str, float], timing: Mapping[str, float]) -> None:
        if step % self.every == 0:
            resident = self.process.memory_info().rss
            give_back()
            self.kept.append(Note(step, resident, self.process.memory_info().rss, self.process.num_fds(),
                                  self.process.num_threads()))


def give_back() -> None:
    """Garbage to the allocator and, where that is glibc's, its free pages to the system."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class Slope(NamedTuple):
    """Of a line through points, with its 95% interval."""

    value: float
    low: float
    high: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=positive, default=1000, help="(%(default)s)")
    parser.add_argument("--every", type=positive, default=50, help="steps between notes (%(default)s)")
    args = parser.parse_args(argv)
    return exit_code("leak", lambda: run(args.steps, args.every))


def run(steps: int, every: int) -> None:
    """
    Raises:
        PosttrainError: psutil is missing, there are too few steps, or the run failed.
    """
    require("psutil")
    if steps // every < FEWEST:
        raise PosttrainError(f"steps = {steps}: must be ≥ {FEWEST} × every = {FEWEST * every}")
    notes, began = Notes(every), time.perf_counter()
    train(steps, every, notes)
    seconds = time.perf_counter() - began
    lines = [*table(notes.kept), "", f"{verdict(notes.kept)} {steps:,} steps of {OPTIONS['prompts']} × "
             f"{OPTIONS['samples']} in {seconds:.0f} s, a checkpoint and an evaluation every {every}; {machine()}."]
    publish("leak", {"machine": machine(), "options": OPTIONS, "seconds": seconds,
                     "notes": [note._asdict() for note in notes.kept]}, lines, anyway=False)


def train(steps: int, every: int, notes: Notes) -> None:
    """`posttrain train grpo`, noted as it goes."""
    from posttrain.core.runtime import configure_process

    configure_process()
    from posttrain.cli.resolve import resolve
    from posttrain.train.run import train as run_training

    with tempfile.TemporaryDirectory(prefix="posttrain-benchmark-") as folder:
        plan = resolve("grpo", {**OPTIONS, "steps": steps, "eval_every": every, "checkpoint_every": every,
                                "out": f"{folder}/run"})
        run_training(plan.method, plan.config, notes)


def settled(notes: Sequence[Note]) -> Sequence[Note]:
    """Without those in which caches still fill."""
    return notes[round(WARM * len(notes)):]


def slope(x: Sequence[float], y: Sequence[float]) -> Slope:
    """Least squares, with Student's t of n − 2 degrees over independent residuals; n ≥ 3 points."""
    from scipy.stats import t

    n, middle, level = len(x), sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - middle) ** 2 for a in x)
    value = sum((a - middle) * (b - level) for a, b in zip(x, y, strict=True)) / spread
    left = sum((b - level - value * (a - middle)) ** 2 for a, b in zip(x, y, strict=True))
    half = float(t.ppf(0.975, n - 2)) * math.sqrt(left / (n - 2) / spread)
    return Slope(value, value - half, value + half)


def verdict(notes: Sequence[Note]) -> str:
    """One sentence of memory and one of files and threads."""
    kept = settled(notes)
    per_step = slope([note.step for note in kept], [note.held / MIB for note in kept])
    value, low, high = (1000 * part for part in per_step)
    grows = "Held memory grows" if low > 0 else "Held memory does not grow"
    return (f"{grows}: {value:+.2f} MiB in 1,000 steps, 95% interval [{low:.2f}, {high:.2f}], over the last "
            f"{1 - WARM:.0%}; open files {kept[-1].files - kept[0].files:+d}, "
            f"threads {kept[-1].threads - kept[0].threads:+d}.")


def table(notes: Sequence[Note]) -> list[str]:
    """Some ten of the notes, the last among them."""
    shown = notes[::-1][::max(1, len(notes) // 10)][::-1]
    return markdown(("step", "resident, MiB", "held, MiB", "open files", "threads"),
                    [[f"{note.step:,}", f"{note.resident / MIB:.1f}", f"{note.held / MIB:.2f}", str(note.files),
                      str(note.threads)] for note in shown])


if __name__ == "__main__":
    sys.exit(main())
