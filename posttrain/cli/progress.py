"""A run on a pipe: one plain line a step.  `choose` gives that, or the live picture on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from posttrain.evaluate.measures import UNITS, measure_of
from posttrain.train.display import Display

HEADLINE = {  # metrics worth a place on the screen, and what to call them there
    "reward": "reward",
    "cost": "cost",
    "length": "length",
    "finished": "finished",
    "grad_norm": "grad norm",
    "kl": "KL",
    "entropy": "entropy",
    "clipped": "clipped",
    "logp_gap": "log-prob gap",
    "groups_without_signal": "no signal",
    "reward_failures": "reward failures",
    "rows_dropped": "rows dropped",
}
SHARES = ("finished", "clipped", "groups_without_signal")
TROUBLE = ("reward_failures", "rows_dropped")  # shown only when there is some


class Shown(Display):
    """A display that must be closed; `with` does it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Leave the terminal as it was."""


def choose(title: str) -> Shown:
    """The live picture where standard output is a terminal that can draw it, else plain lines."""
    encoding = (getattr(sys.stdout, "encoding", "") or "").lower()
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and encoding.startswith("utf"):
        from posttrain.cli.live import Live

        return Live(title)
    return Plain(title)


class Plain(Shown):
    """Lines of `name=value`, flushed, without control characters; the form of a line does not change."""

    def __init__(self, title: str) -> None:
        self.steps = 0
        self._say(f"run: {title}")

    def note(self, line: str) -> None:
        self._say(f"note: {line}")

    def objective(self, lines: Sequence[tuple[str, str]]) -> None:
        for label, text in lines:
            for line in text.splitlines():
                self._say(f"{label}: {line.strip()}")

    def begin(self, first_step: int, steps: int) -> None:
        self.steps = steps

    def step(self, step: int, metrics: Mapping[str, float], timing: Mapping[str, float]) -> None:
        told = [f"{name}={number(value)}" for name, value in headline(metrics).items()]
        spent = [f"{stage}_s={seconds:.3g}" for stage, seconds in timing.items()]
        self._say(" ".join([f"step={step}/{self.steps}", *told, *spent]))

    def evaluation(self, when: str, results: Mapping[str, Any]) -> None:
        self._say(f"evaluation {when}: {result_line(results)}")

    def finish(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._say(line)

    def _say(self, line: str) -> None:
        print(visible(line), flush=True)


def headline(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of HEADLINE that are there, in its order; counts of trouble only when there is some."""
    there = (name for name in HEADLINE if name in metrics)
    return {name: metrics[name] for name in there if metrics[name] or name not in TROUBLE}


def result_line(results: Mapping[str, Any]) -> str:
    """`accuracy=0.31 [0.25, 0.38] problems=200`: an interval follows its mean, scores are counted."""
    words, unit = [], UNITS.get(measure_of(results), "problem")
    for name, value in results.items():
        if name == "scores":
            words.append(f"{unit}s={len(value)}")
        elif isinstance(value, (list, tuple)):
            words.append("[" + ", ".join(map(number, value)) + "]")
        elif name not in ("step", "when") and (value or name != "failures"):
            words.append(f"{name}={number(value)}")
    return " ".join(words)


def number(value: Any) -> str:
    """Three significant digits for a float; anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def visible(text: str) -> str:
    """`text` with every character that a terminal might obey written out, and newlines as ⏎."""
    return "".join(c if c.isprintable() else "⏎" if c == "\n" else c.encode("unicode_escape").decode()
                   for c in text)
