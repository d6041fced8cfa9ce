"""The last words of a run: what improved, from what to what, how sure that is, and what to do next."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from posttrain.evaluate.measures import SHARES, UNITS
from posttrain.train.config import Config
from posttrain.train.objective import counted


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
    before, after, measure = summary["before"], summary["after"], summary["measure"]
    low, high = summary["gain_interval"]
    if measure in SHARES:
        shown, spread, what = percent, between(after["interval"]), "held-out problem"
        difference = f"a difference of {100 * low:+.0f} to {100 * high:+.0f} points"
    else:
        shown, what = "{:.4g}".format, UNITS[measure]
        spread, difference = "{:.4g} to {:.4g}".format(*after["interval"]), f"a difference of {low:+.4g} to {high:+.4g}"
    changed = f"no change that these {what.split()[-1]}s can show" if low <= 0 <= high else difference
    sure = f"95% interval {spread}; {changed}" if math.isfinite(high - low) else f"one {what} has no interval"
    lines = [
        f"{measure.replace('_', ' ')} {shown(before[measure])} → {shown(after[measure])} ({sure}) on "
        f"{counted(summary['problems'], what)} in {duration(summary['training_seconds'])} of training",
        f"run folder {folder}, policy {folder / 'final'}",
        f"pictures {folder}/pictures/before.png and after.png" if measure == "picture_reward" else
        f"next: posttrain eval {folder} --task {config.task}   or   posttrain export {folder} my-model",
    ]
    if "other_skills" in after:
        lines.insert(1, f"other skills {percent(before['other_skills'])} → {percent(after['other_skills'])} (95% "
                        f"interval {between(after['other_interval'])}); KL to the initial policy "
                        f"{after['kl_other']:.3f} nats a token there, {after['kl_task']:.3f} on the task")
    elif "kl_task" in after:
        lines.insert(1, f"KL to the initial policy {after['kl_task']:.3f} nats a token on the task")
    return lines
