"""Seconds and memory of one GRPO update, sampling aside: posttrain against TRL, on the same token ids.

    pip install -e ".[benchmarks]"
    python benchmarks/update.py                          # 8 prompts × 8 completions of at most 24 tokens
    python benchmarks/update.py --samples 8 16 64        # a table: each option's further values, one at a time

Each side runs in a process of its own for each size, and they take turns, update by update.  docs/benchmarks.md says
what is held equal and what the numbers mean.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from published import markdown, publish, watch
from versus.command import architecture, each, exit_code, inspect, one_step, options, positive, require
from versus.floor import floor_of, peaks
from versus.side import Side
from versus.summary import Pair, check_all_learnt, check_same_prompts, chosen, compare, final_line, where
from versus.workload import UpdateWorkload

from posttrain.core.errors import PosttrainError, UserError
from posttrain.policies.pretrained import resolve

SIZES = {"prompts": 8, "samples": 8, "prompt_tokens": 46, "new_tokens": 24}
SHARED = 0.65  # of a prompt: 30 of the 46 tokens of the task `addition` are the chat template's
SAME_NORM = 0.05  # gradient norms of the same update differ by less in bf16, or fp32 must tell whether it is the same
SAME_FP32_NORM = 0.01
ENOUGH = 512  # completion tokens for that: of fewer, rounding to bf16 leaves more, as one over the root of their number
HEADS = ("prompts", "samples", "prompt tokens", "new tokens", "posttrain, s", "TRL, s", "TRL takes", "posttrain, GiB",
         "TRL, GiB", "share of floor", "loss and gradient", "AdamW", "TRL's")


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code("update", lambda: run(parse(argv)))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = options(__doc__)
    for name, value in SIZES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=positive, nargs="+", default=[value],
                            help=f"one value, or several for a table ({value})")
    parser.add_argument("--steps", type=positive, default=5, help="measured, after a warm-up (%(default)s)")
    parser.add_argument("--fixed-length", action="store_true", help="every completion has --new-tokens tokens")
    parser.add_argument("--trl-micro-batch", type=positive, help="completions in TRL's training passes (all)")
    parser.add_argument("--trl-checkpointing", action="store_true",
                        help="TRL recomputes activations: less memory, slower; its own default")
    parser.add_argument("--alone", action="store_true", help="posttrain only, where TRL would not fit")
    return parser.parse_args(argv)


def sizes(args: argparse.Namespace) -> Iterator[dict[str, int]]:
    """The first value of every option, then each further value of one option with the others at their first."""
    first = {name: getattr(args, name)[0] for name in SIZES}
    yield first
    for name in SIZES:
        for value in getattr(args, name)[1:]:
            yield first | {name: value}


def run(args: argparse.Namespace) -> None:
    """Measure size by size, and publish."""
    require(*(("psutil",) if args.alone else ("trl", "psutil")))
    load = watch(args.anyway)
    folder = resolve(args.policy)
    arch = architecture(args.policy, folder)
    machine = inspect(args.precision, args.threads)
    floor = floor_of(arch, machine)

    def one(size: dict[str, int]) -> dict[str, Any]:
        pairs = measure(workload(args, size, folder, machine, arch.vocabulary), args.timeout, args.alone)
        counted = chosen(pairs, args.anyway)
        result = compare(counted, [floor.update] * len(counted))
        told = {"size": size, "alone": args.alone, "result": result, "steps": [asdict(pair) for pair in pairs]}
        print("  ".join(row(told)) if args.alone else final_line(result, machine, "update"), file=sys.stderr)
        return told

    found, missing = each(sizes(args), one)
    lines = [*markdown(HEADS, [row(told) for told in found]), "", *missing,
             f"{Path(args.policy).name}, medians of at most {args.steps} updates; {where(machine, 'trl')}; "
             f"{peaks(machine)}; others used {load:.2f} cores before the start."]
    publish("update", {"machine": machine, "sizes": found}, lines, args.anyway)


def workload(args: argparse.Namespace, size: dict[str, int], folder: Path, machine: dict[str, Any],
             vocabulary: int) -> UpdateWorkload:
    """
    Raises:
        UserError: a micro-batch of TRL's does not divide the batch.
    """
    rows = size["prompts"] * size["samples"]
    micro = args.trl_micro_batch or rows
    if rows % micro:
        raise UserError(f"trl_micro_batch = {micro}: must divide prompts × samples = {rows}")
    if size["samples"] < 2:
        raise UserError(f"samples = {size['samples']}: must be ≥ 2: a group of one has nothing to teach")
    return UpdateWorkload(str(folder), size["prompts"], size["samples"], size["new_tokens"], args.steps + 1,
                          machine["precision"], machine["threads"], args.fixed_length, micro, args.trl_checkpointing,
                          prompt_tokens=size["prompt_tokens"], shared_tokens=int(SHARED * size["prompt_tokens"]),
                          vocabulary=vocabulary)


def measure(work: UpdateWorkload, timeout: float, alone: bool) -> list[Pair]:
    """Pairs of updates, the warm-up first.  Alone, a side is compared with itself.

    Raises:
        PosttrainError: a side failed, or the two did not compute the same.
    """
    if alone:
        with Side("posttrain", "versus.posttrain_update", work.dump(), work.threads) as ours:
            ours.receive(timeout)
            return [Pair(report, report) for report in (one_step(ours, timeout) for _ in range(work.steps))]
    pairs = beside(work, timeout)
    apart = [pair for pair in pairs if norms_differ(pair, SAME_NORM)]
    if apart and work.precision != "fp32":  # rounding, or another update?
        print(f"gradient norms are {norms(apart[0])} in {work.precision}; comparing in fp32", file=sys.stderr)
        apart = [pair for pair in beside(replace(work, precision="fp32", steps=2), timeout)
                 if norms_differ(pair, SAME_FP32_NORM)]
    if apart:
        raise PosttrainError(f"gradient norms are {norms(apart[0])}: not the same update")
    return pairs


def beside(work: UpdateWorkload, timeout: float) -> list[Pair]:
    """Pairs of updates of both sides, who begins alternating."""
    with (Side("posttrain", "versus.posttrain_update", work.dump(), work.threads) as ours,
          Side("TRL", "versus.trl_update", work.dump(), work.threads) as theirs):
        for side in (ours, theirs):
            side.receive(timeout)
        pairs = []
        for step in range(work.steps):
            order = (ours, theirs) if step % 2 else (theirs, ours)
            rows = {side.name: one_step(side, timeout) for side in order}
            pairs.append(Pair(rows["posttrain"], rows["TRL"]))
            check_same_prompts(pairs[-1])
            check_all_learnt(pairs[-1])
        return pairs


def norms_differ(pair: Pair, share: float) -> bool:
    """Whether the norms of the two gradients differ by more than that, and more where there are few tokens."""
    ours, theirs = pair.ours["grad_norm"], pair.theirs["grad_norm"]
    return bool(abs(ours - theirs) > share * max(1.0, ENOUGH / sum(pair.ours["lengths"])) ** 0.5 * theirs)


def norms(pair: Pair) -> str:
    return f"{pair.ours['grad_norm']:.4g} and {pair.theirs['grad_norm']:.4g}"


def row(found: Mapping[str, Any]) -> list[str]:
    """One size's medians, in the order of `HEADS`; nothing of TRL where it did not run."""
    a, b = found["result"]["posttrain"], found["result"]["TRL"]
    theirs = [f"{b['seconds']:.2f}", f"{found['result']['ratio_of_medians']:.2f}×", f"{b['peak_gib']:.2f}",
              f"{b['share']:.1%}"]
    seconds, ratio, gib, share = [""] * len(theirs) if found["alone"] else theirs
    return [*map(str, found["size"].values()), f"{a['seconds']:.2f}", seconds, ratio, f"{a['peak_gib']:.2f}", gib,
            f"{a['share']:.1%}", f"{a['share, loss and gradient']:.1%}", f"{a['share, optimizer']:.1%}", share]


if __name__ == "__main__":
    sys.exit(main())
