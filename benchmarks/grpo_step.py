"""Seconds and memory of one GRPO step: posttrain against TRL, on the same work and the same machine.

    pip install -e ".[benchmarks]"
    python benchmarks/grpo_step.py

Each side runs in a process of its own; they take turns, step by step, so that both meet the same machine.
docs/benchmarks.md says what is held equal, what the numbers mean and what they do not show.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from published import publish, watch
from versus.command import architecture, exit_code, inspect, one_step, options, positive, require
from versus.floor import floor_of, peaks
from versus.side import Side
from versus.summary import (
    Pair,
    check_all_learnt,
    check_same_prompts,
    chosen,
    compare,
    final_line,
    step_lines,
    table,
    together,
)
from versus.workload import Workload

from posttrain.core.errors import PosttrainError, UserError
from posttrain.policies.pretrained import resolve

MEANINGS = {"prompts": "prompts per step", "samples": "completions per prompt", "new-tokens": "longest completion"}
SIZE = (8, 8, 24)  # of these


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code("grpo_step", lambda: run(parse(argv)))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Raises:
        UserError: options that do not fit one another.
    """
    parser = options(__doc__)
    for (name, meaning), value in zip(MEANINGS.items(), SIZE, strict=True):
        parser.add_argument(f"--{name}", type=positive, default=value, help=f"{meaning} (%(default)s)")
    parser.add_argument("--steps", type=positive, default=5, help="measured, after a warm-up (%(default)s)")
    parser.add_argument("--warm-tokens", type=positive, help="longest completion of the warm-up (as in other steps)")
    parser.add_argument("--verified", action="store_true",
                        help="rewards of the task's verifier: posttrain leaves out groups that teach nothing")
    parser.add_argument("--lr", type=float, default=Workload.lr, help="of both sides (%(default)s)")
    parser.add_argument("--fixed-length", action="store_true", help="nothing ends a completion early")
    parser.add_argument("--trl-micro-batch", type=positive, help="completions in TRL's training passes (all)")
    parser.add_argument("--trl-checkpointing", action="store_true",
                        help="TRL recomputes activations: less memory, slower; its own default")
    args = parser.parse_args(argv)
    rows = args.prompts * args.samples
    args.trl_micro_batch = args.trl_micro_batch or rows
    if args.samples < 2:
        raise UserError(f"samples = {args.samples}: must be ≥ 2: a group of one has nothing to teach")
    if rows % args.trl_micro_batch:
        raise UserError(f"trl_micro_batch = {args.trl_micro_batch}: must divide prompts × samples = {rows}")
    return args


def run(args: argparse.Namespace) -> None:
    """Measure and publish."""
    require("trl", "psutil")
    load = watch(args.anyway)
    folder = resolve(args.policy)
    arch = architecture(args.policy, folder)
    machine = inspect(args.precision, args.threads)
    pairs = measure(args, folder, machine)
    counted = chosen(pairs, args.anyway)
    result = compare(counted, [floor_of(arch, pair.machine).step for pair in counted])
    for side, first in (("posttrain", pairs[0].ours), ("TRL", pairs[0].theirs)):
        result[side]["first"] = first["seconds"]
    ratios = ", ".join(f"{ratio:.2f}" for ratio in result["ratios"])
    told = [f"medians of {result['pairs']} steps; ratio of each: {ratios}; "
            f"{peaks(*(pair.machine for pair in counted))}",
            f"others used {load:.2f} cores before the start, and disturbed {result['disturbed']} of these steps",
            *([together(pairs)] if args.verified else []), final_line(result, machine)]
    publish(mark(args), {"options": vars(args), "machine": machine, "architecture": asdict(arch), "result": result,
                          "steps": [asdict(pair) for pair in pairs]},
            ["```", *step_lines(pairs), "", *table(result), "", *told, "```"], args.anyway)


def mark(args: argparse.Namespace) -> str:
    """Where figures go: those of other rewards and sizes than the first do not replace its own."""
    size = (args.prompts, args.samples, args.new_tokens)
    name = "grpo-step-verified" if args.verified else "grpo-step"
    return name if size == SIZE else f"{name}-" + "x".join(map(str, size))


def measure(args: argparse.Namespace, folder: Path, machine: dict[str, Any]) -> list[Pair]:
    """Pairs of steps, the warm-up first.  Who begins alternates.

    Raises:
        PosttrainError: a side failed, or the two were not given the same work.
    """
    workload = Workload(str(folder), args.prompts, args.samples, args.new_tokens, args.steps + 1,
                        machine["precision"], machine["threads"], args.fixed_length, args.trl_micro_batch,
                        args.trl_checkpointing, lr=args.lr, warm_tokens=args.warm_tokens or 0,
                        verified=args.verified).dump()
    with (Side("posttrain", "versus.posttrain_side", workload, machine["threads"]) as ours,
          Side("TRL", "versus.trl_side", workload, machine["threads"]) as theirs):
        told = [side.receive(args.timeout) for side in (ours, theirs)]
        if told[0] != told[1]:
            raise PosttrainError(f"the two sides differ in what they were given: {told[0]} and {told[1]}")
        pairs = []
        for step in range(args.steps + 1):
            rows, now = {}, machine
            for side in (ours, theirs) if step % 2 else (theirs, ours):
                if side is ours:
                    now = inspect(args.precision, args.threads)  # its speed changes by the minute
                rows[side.name] = one_step(side, args.timeout)
            pairs.append(Pair(rows["posttrain"], rows["TRL"], now))
            check_same_prompts(pairs[-1])
            if not args.verified:  # of a verifier's groups posttrain leaves out those that teach nothing
                check_all_learnt(pairs[-1])
            print(f"step {step} of {args.steps}: posttrain {pairs[-1].ours['seconds']:.2f} s, "
                  f"TRL {pairs[-1].theirs['seconds']:.2f} s", file=sys.stderr, flush=True)
    return pairs


if __name__ == "__main__":
    sys.exit(main())
