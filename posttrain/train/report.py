"""The last words of a run: what improved, from what to what, how sure that is, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posttrain.train.config import Config


def percent(x: float) -> str:
    """0.8650 -> "86.5%"; whole numbers without the point."""
    return f"{100 * x:.1f}".removesuffix(".0") + "%"


def between(pair: tuple[float, float]) -> str:
    return f"{100 * pair[0]:.0f}–{100 * pair[1]:.0f}%"


def duration(seconds: float) -> str:
    """310 -> "5 min 10 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def tell(summary: dict[str, Any], folder: Path, config: Config) -> list[str]:
    """Lines to print."""
    before, after = summary["before"], summary["after"]
    low, high = (f"{100 * x:+.0f}" for x in summary["gain_interval"])
    changed = "no change that these problems can show" if summary["gain_interval"][0] <= 0 <= summary["gain_interval"][
        1] else f"a difference of {low} to {high} points"
    return [
        f"accuracy {percent(before['accuracy'])} → {percent(after['accuracy'])} (95% interval "
        f"{between(after['interval'])}; {changed}) on {summary['problems']} held-out problems "
        f"in {duration(summary['training_seconds'])} of training",
        f"other skills {percent(before['other_skills'])} → {percent(after['other_skills'])} (95% interval "
        f"{between(after['other_interval'])}); KL to the initial policy {after['kl_other']:.3f} nats a token there, "
        f"{after['kl_task']:.3f} on the task",
        f"run folder {folder}, policy {folder / 'final'}",
        f"next: posttrain eval {folder} --task {config.task}   or   posttrain export {folder} my-model",
    ]
