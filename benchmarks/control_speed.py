"""Actions and updates a second of PPO and SAC: posttrain beside Stable-Baselines3 and CleanRL's programs.

    pip install -e ".[control]" stable-baselines3 psutil
    python benchmarks/control_speed.py
    python benchmarks/control_speed.py --cleanrl ../cleanrl --cleanrl-python ../cleanrl-env/bin/python

Each side is a process of its own on one thread.  They take turns of as many actions each, with all the learning between
them, so that all meet the same machine; an environment that pauses is what stops them (benchmarks/versus/paced.py).
CleanRL's programs need the Gymnasium that they were written for, 0.29, in an environment of their own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from published import watch
from seeds import machine
from versus.command import exit_code
from versus.paced import TASK, Work
from versus.side import Side

from posttrain.core.errors import UserError

TURN = {"ppo": (2 * 2048, 2048), "sac": (2048, 128)}  # actions before the first turn, and in one: few,
# for a machine's own pace changes by the second
UPDATES = {"ppo": 320 / 2048, "sac": 1.0}  # for each action
SCRIPT = {"ppo": "ppo_continuous_action.py", "sac": "sac_continuous_action.py"}


def main(argv: Sequence[str] | None = None) -> int:
    """0: measured; 1: not measured, for one reason on standard error; 2: wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=21, help="measured of each side (%(default)s)")
    parser.add_argument("--cleanrl", type=Path, metavar="FOLDER", help="a checkout of CleanRL")
    parser.add_argument("--cleanrl-python", default=sys.executable, metavar="FILE", help="which has its Gymnasium")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one turn (%(default)s)")
    parser.add_argument("--anyway", action="store_true", help="measure although other processes are at work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to a new file")
    args = parser.parse_args(argv)
    return exit_code("control_speed", lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """
    Raises:
        PosttrainError: on a busy machine, or a side that fails.
    """
    if args.json is not None and args.json.exists():
        raise UserError(f"json = '{args.json}': exists already; name another file")
    load = watch(args.anyway)
    measured = {method: measure(method, args) for method in TURN}
    if args.json is not None:
        kept = {"machine": machine(), "load_before": load, "turns": measured}
        args.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(measured)))
    print(f"{TASK}, one thread a side, {args.turns} turns each, {machine()}; "
          f"other processes used {load:.2f} cores before")


def measure(method: str, args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Each side's turns."""
    warm, turn = TURN[method]
    sides = ["posttrain", "SB3", *(["CleanRL"] if args.cleanrl else [])]
    with ExitStack() as stack:
        running = []
        for name in sides:
            script = str((args.cleanrl / "cleanrl" / SCRIPT[method]).resolve()) if name == "CleanRL" else ""
            side = Side(name, "versus.paced", Work(name, method, warm, turn, script).dump(), 1,
                        args.cleanrl_python if script else sys.executable, [args.cleanrl] if script else [])
            running.append(stack.enter_context(side))
            side.receive(args.timeout)  # warm
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for number in range(args.turns):
            for side in running if number % 2 else running[::-1]:
                turns[side.name].append(side.step(args.timeout))
            print(f"{method}, turn {number + 1}: " + ", ".join(
                f"{name} {turn / told[-1]['seconds']:.0f}/s" for name, told in turns.items()), file=sys.stderr)
    return turns


def table(measured: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """Lines of Markdown: medians over turns, and between which ratios the middle half of the turns lies."""
    lines = ["| method | side | actions/s | updates/s | processor ms an action | peak memory, GiB | posttrain is "
             "| in half of the turns |", "|---|---|---|---|---|---|---|---|"]
    for method, turns in measured.items():
        ours = [one["seconds"] for one in turns["posttrain"]]
        for name, told in turns.items():
            seconds = statistics.median(one["seconds"] for one in told)
            low, high = np.quantile([one["seconds"] / mine for one, mine in zip(told, ours, strict=True)], [0.25, 0.75])
            beside = f"{seconds / statistics.median(ours):.2f}× as fast | {low:.2f} to {high:.2f}×"
            cpu = statistics.median(one["cpu_seconds"] for one in told)
            rate = TURN[method][1] / seconds
            lines.append(f"| {method} | {name} | {rate:.0f} | {rate * UPDATES[method]:.0f} "
                         f"| {1000 * cpu / TURN[method][1]:.2f} | {told[-1]['peak_bytes'] / 2**30:.2f} "
                         f"| {' | ' if name == 'posttrain' else beside} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
