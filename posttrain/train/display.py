"""How a run speaks to whoever watches it; `cli` draws it, a library caller may stay silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Display:
    """Silent.  The command line's displays override what they show."""

    def note(self, line: str) -> None:
        """One thing worth knowing: a download, a fallback, a checkpoint that was skipped."""

    def objective(self, lines: Sequence[tuple[str, str]]) -> None:
        """(label, text) pairs: what will be optimised, before the first step."""

    def begin(self, first_step: int, steps: int) -> None:
        """Steps are numbered from 1; a resumed run begins later."""

    def sample(self, prompt: str, completion: str, reward: float) -> None:
        """One completion of the present step.  It is hostile text: escape it before drawing it."""

    def step(self, step: int, metrics: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """After every update: deterministic metrics, and seconds by stage."""

    def evaluation(self, when: str, results: Mapping[str, Any]) -> None:
        """After each held-out evaluation; `when` is "before", "step N" or "after"."""

    def finish(self, lines: Sequence[str]) -> None:
        """What improved, from what to what, with an interval; the folder; the next command."""
