"""Tokens a second and memory of sampling alone: posttrain's engine beside transformers, vLLM and OpenVINO GenAI.

    pip install -e ".[benchmarks]"
    python benchmarks/rollout.py
    python benchmarks/rollout.py --vllm-python ../vllm-env/bin/python --batch 1 8 64 --new-tokens 24 128 512
    python benchmarks/rollout.py --openvino-python ../openvino-env/bin/python

Each side is a process of its own and they take turns, on the same prompts (the task `addition`, 8 samples of each where
the batch has as many), with as many tokens each and no early end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from published import markdown, publish, watch
from versus import quiet
from versus.command import architecture, each, exit_code, inspect, one_step, options, positive, require
from versus.floor import Floor, floor_of, peaks
from versus.rollout_sides import Work
from versus.side import PARTS, Side
from versus.summary import GIB, where

from posttrain.core.errors import PosttrainError, UserError
from posttrain.policies.load import load_language_model
from posttrain.policies.pretrained import resolve
from posttrain.tasks import load_task

Turns = dict[str, list[dict[str, Any]]]  # by side, what it reported of each turn
GROUP = 8  # samples of a prompt, at most


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--batch", type=positive, nargs="+", default=[1, 8, 64], help="rows at a time (1 8 64)")
    parser.add_argument("--new-tokens", type=positive, nargs="+", default=[24], help="of each row (24)")
    parser.add_argument("--turns", type=positive, default=5, help="measured of each side (%(default)s)")
    parser.add_argument("--vllm-python", metavar="FILE", help="one that has vLLM; none: no vLLM")
    parser.add_argument("--openvino-python", metavar="FILE",
                        help="one that has openvino-genai and optimum-intel; none: no OpenVINO")
    args = parser.parse_args(argv)
    return exit_code("rollout", lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """
    Raises:
        PosttrainError: on a busy machine, or a side that fails.
    """
    require("psutil")
    load = watch(args.anyway)
    folder, machine = resolve(args.policy), inspect(args.precision, args.threads)
    floor = floor_of(architecture(args.policy, folder), machine)
    ids = prompts_of(folder, -(-max(args.batch) // GROUP))
    named = {"vllm": args.vllm_python, "openvino": args.openvino_python}
    pythons = {name: python for name, python in named.items() if python}

    def one(size: tuple[int, int]) -> dict[str, Any]:
        batch, tokens = size
        samples = group(batch)
        work = Work("posttrain", str(folder), ids[:batch // samples], samples, tokens, machine["precision"],
                    machine["threads"])
        turns = measure(work, ["transformers", *pythons], args.turns, args.timeout, pythons)
        print(f"batch {batch}, {tokens} tokens: " + ", ".join(
            f"{name} {told[-1]['seconds']:.2f} s" for name, told in turns.items()), file=sys.stderr)
        return {"batch": batch, "new_tokens": tokens, "sides": collect(turns, work, floor, args.anyway), "turns": turns}

    found, missing = each(sizes(args.batch, args.new_tokens), one)
    versions = ", ".join(f"{name} {told['version']}" for name, told in list(found[-1]["sides"].items())[1:])
    lines = [*table(found), "", *missing,
             f"{Path(args.policy).name}, medians of at most {args.turns} turns; {where(machine)}, {versions}; "
             f"{peaks(machine)}; others used {load:.2f} cores before the start."]
    publish("rollout", {"machine": machine, "sizes": found}, lines, args.anyway)


def sizes(batches: Sequence[int], tokens: Sequence[int]) -> list[tuple[int, int]]:
    """Each batch at the first number of tokens, then each further number of tokens at the last batch."""
    return [*((batch, tokens[0]) for batch in batches), *((batches[-1], more) for more in tokens[1:])]


def group(batch: int) -> int:
    """Samples of each prompt in a batch.

    Raises:
        UserError: it does not hold whole groups.
    """
    samples = min(batch, GROUP)
    if batch % samples:
        raise UserError(f"batch = {batch}: must be at most {GROUP}, or a multiple of it")
    return samples


def prompts_of(folder: Path, count: int) -> tuple[tuple[int, ...], ...]:
    """Token ids of the task's first problems."""
    model, task = load_language_model(folder, max_new_tokens=8, precision="fp32"), load_task("addition")
    return tuple(tuple(model.prompter.encode(task.train(i, 0).prompt)) for i in range(count))


def measure(work: Work, peers: Sequence[str], count: int, timeout: float,
            pythons: Mapping[str, str] | None = None) -> Turns:
    """So many turns of posttrain and of each peer at one size; pythons: interpreters, of sides that need another.

    Raises:
        PosttrainError: a side failed, or did not sample as many tokens.
    """
    names = [work.side, *peers]
    found = alternate([replace(work, side=name) for name in names], count, timeout, pythons or {})
    turns = dict(zip(names, found, strict=True))
    counted = {name: told[0]["tokens"] for name, told in turns.items()}
    if len(set(counted.values())) > 1:
        raise PosttrainError(f"the sides did not sample as many tokens: {counted}")
    return turns


def alternate(works: Sequence[Work], count: int, timeout: float, pythons: Mapping[str, str]
              ) -> list[list[dict[str, Any]]]:
    """So many turns of each, who take turns, each in a process of its own; so that all see the same machine.

    Raises:
        PosttrainError: one of them failed.
    """
    with ExitStack() as stack:
        running = [stack.enter_context(Side(work.side, "versus.rollout_sides", work.dump(), work.threads,
                                            pythons.get(work.side, sys.executable), [PARTS.parent])) for work in works]
        versions = [side.receive(timeout)["version"] for side in running]
        turns: list[list[dict[str, Any]]] = [[] for _ in works]
        for number in range(count):
            for i in sorted(range(len(works)), reverse=number % 2 == 0):
                turns[i].append({**one_step(running[i], timeout), "version": versions[i]})
    return turns


def collect(turns: Turns, work: Work, floor: Floor, anyway: bool) -> dict[str, dict[str, Any]]:
    """Of each side: median seconds, tokens a second, share of the floor, peak memory, version.

    Raises:
        Disturbed: others disturbed all of a side's turns, and not `anyway`.
    """
    least = floor.rollout(work.prompts, [work.new_tokens] * len(work.prompts) * work.samples)
    found = {}
    for name, told in turns.items():
        kept = [one["seconds"] for one in told if anyway or one["others"] <= quiet.LIMIT]
        if not kept:
            raise quiet.Disturbed(f"{name}: others used more than {quiet.LIMIT:.0%} of a core in every turn: nothing "
                                  "to report (--anyway reports with a warning)")
        seconds = median(kept)
        found[name] = {"seconds": seconds, "rate": told[0]["tokens"] / seconds, "share": least / seconds,
                       "peak_gib": max(one["peak_bytes"] for one in told) / GIB, "version": told[0]["version"]}
    return found


def table(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown."""
    names = list(found[0]["sides"])
    heads = ["batch", "new tokens", *(f"{name}, tokens/s (of the floor)" for name in names),
             *(f"{name}, GiB" for name in names), "posttrain is"]
    rows = []
    for one in found:
        sides = [one["sides"][name] for name in names]
        ratios = ", ".join(f"{side['seconds'] / sides[0]['seconds']:.2f}× {name}"
                           for name, side in list(zip(names, sides, strict=True))[1:])
        rows.append([str(one["batch"]), str(one["new_tokens"]),
                     *(f"{side['rate']:.0f} ({side['share']:.0%})" for side in sides),
                     *(f"{side['peak_gib']:.2f}" for side in sides), ratios])
    return markdown(heads, rows)


if __name__ == "__main__":
    sys.exit(main())
