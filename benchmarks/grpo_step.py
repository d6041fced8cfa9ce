"""Seconds and memory of one GRPO step: posttrain against TRL, on the same work and the same machine.

    pip install -e ".[benchmarks]"
    python benchmarks/grpo_step.py

Each side runs in a process of its own; they take turns, step by step, so that both meet the same machine.
docs/benchmarks.md says what is held equal, what the numbers mean and what they do not show.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from published import publish, watch
from versus import quiet
from versus.floor import Floor
from versus.side import Side, environment
from versus.summary import Pair, check_same_work, chosen, compare, final_line, step_lines, table
from versus.workload import Workload

from posttrain.core.errors import PosttrainError, UserError
from posttrain.nets.architecture import Architecture, Unsupported, read_architecture
from posttrain.policies.pretrained import resolve

MACHINE_SECONDS = 300.0


def main(argv: Sequence[str] | None = None) -> int:
    """0: measured; 1: not measured, for one reason on standard error; 2: wrong use."""
    try:
        run(parse(argv))
    except PosttrainError as error:
        print(f"grpo_step: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Raises:
        UserError: options that do not fit one another.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--policy", default="smollm2-135m", help="as in posttrain train (%(default)s)")
    parser.add_argument("--prompts", type=positive, default=8, help="prompts per step (%(default)s)")
    parser.add_argument("--samples", type=positive, default=8, help="completions per prompt (%(default)s)")
    parser.add_argument("--new-tokens", type=positive, default=24, help="longest completion (%(default)s)")
    parser.add_argument("--steps", type=positive, default=5, help="measured, after a warm-up (%(default)s)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto",
                        help="auto: bf16 where the processor multiplies it, else fp32")
    parser.add_argument("--threads", type=positive, default=0, help="of each side (one per core)")
    parser.add_argument("--fixed-length", action="store_true", help="nothing ends a completion early")
    parser.add_argument("--trl-micro-batch", type=positive, help="completions in TRL's training passes (all)")
    parser.add_argument("--trl-checkpointing", action="store_true",
                        help="TRL recomputes activations: less memory, slower; its own default")
    parser.add_argument("--timeout", type=positive, default=1800, help="seconds for one step (%(default)s)")
    parser.add_argument("--anyway", action="store_true", help="print figures although other processes are at work")
    args = parser.parse_args(argv)
    rows = args.prompts * args.samples
    args.trl_micro_batch = args.trl_micro_batch or rows
    if args.samples < 2:
        raise UserError(f"samples = {args.samples}: must be ≥ 2: a group of one has nothing to teach")
    if rows % args.trl_micro_batch:
        raise UserError(f"trl_micro_batch = {args.trl_micro_batch}: must divide prompts × samples = {rows}")
    return args


def positive(text: str) -> int:
    """A whole number ≥ 1, for argparse."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def run(args: argparse.Namespace) -> None:
    """Measure and publish."""
    require("trl", "psutil")
    load = watch(args.anyway)
    folder = resolve(args.policy)
    arch = architecture(args.policy, folder)
    machine = inspect(args.precision, args.threads)
    pairs = measure(args, folder, machine)
    counted = chosen(pairs, args.anyway)
    result = compare(counted, Floor(arch, machine["precision"], machine["gflops"], machine["gbytes"]).step)
    for side, first in (("posttrain", pairs[0].ours), ("TRL", pairs[0].theirs)):
        result[side]["first"] = first["seconds"]
    ratios = ", ".join(f"{ratio:.2f}" for ratio in result["ratios"])
    told = [f"medians of {result['pairs']} steps; ratio of each: {ratios}; {peaks(machine)}",
            f"others used {load:.2f} cores before the start, and disturbed {result['disturbed']} of these steps",
            final_line(result, machine)]
    publish("grpo-step", {"options": vars(args), "machine": machine, "architecture": asdict(arch), "result": result,
                          "steps": [asdict(pair) for pair in pairs]},
            ["```", *step_lines(pairs), "", *table(result), "", *told, "```"], args.anyway)


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


def peaks(machine: dict[str, Any]) -> str:
    """What floors were computed from."""
    return f"peaks {machine['gflops']:.0f} GFLOP/s and {machine['gbytes']:.0f} GB/s"


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


def measure(args: argparse.Namespace, folder: Path, machine: dict[str, Any]) -> list[Pair]:
    """Pairs of steps, the warm-up first.  Who begins alternates.

    Raises:
        PosttrainError: a side failed, or the two were not given the same work.
    """
    workload = Workload(str(folder), args.prompts, args.samples, args.new_tokens, args.steps + 1,
                        machine["precision"], machine["threads"], args.fixed_length, args.trl_micro_batch,
                        args.trl_checkpointing).dump()
    with (Side("posttrain", "versus.posttrain_side", workload, machine["threads"]) as ours,
          Side("TRL", "versus.trl_side", workload, machine["threads"]) as theirs):
        told = [side.receive(args.timeout) for side in (ours, theirs)]
        if told[0] != told[1]:
            raise PosttrainError(f"the two sides differ in what they were given: {told[0]} and {told[1]}")
        pairs = []
        for step in range(args.steps + 1):
            order = (ours, theirs) if step % 2 else (theirs, ours)
            rows = {side.name: one_step(side, args.timeout) for side in order}
            pairs.append(Pair(rows["posttrain"], rows["TRL"]))
            check_same_work(pairs[-1])
            print(f"step {step} of {args.steps}: posttrain {pairs[-1].ours['seconds']:.2f} s, "
                  f"TRL {pairs[-1].theirs['seconds']:.2f} s", file=sys.stderr, flush=True)
    return pairs


def one_step(side: Side, timeout: float) -> dict[str, Any]:
    """A side's report of its next step, with the load that others caused meanwhile, in cores."""
    before = quiet.usage()
    report: dict[str, Any] = side.step(timeout)
    return {**report, "others": quiet.others(before, quiet.usage())}


if __name__ == "__main__":
    sys.exit(main())
