"""How speed and memory go with prompts, group size, prompt length and completion length: one table each, and one plot.

    pip install -e ".[benchmarks]"
    python benchmarks/scaling.py
    python benchmarks/scaling.py --samples 4 16 64       # one option's further values, the others at their first
    python benchmarks/scaling.py --draw                  # the plot alone, from evidence/scaling.json

Sampling is measured beside transformers' generate and the update beside TRL, as benchmarks/rollout.py and
benchmarks/update.py do; sizes of more tokens than `--peer-tokens` are posttrain's alone.  Every side of every size is
a process of its own, and all completions are as long as they may be.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rollout
import update
from published import ROOT, markdown, publish, watch
from versus.command import architecture, each, exit_code, inspect, options, positive, require
from versus.floor import Floor, floor_of, peaks
from versus.rollout_sides import Work
from versus.summary import chosen, compare, where
from versus.workload import UpdateWorkload

from posttrain.core.errors import PosttrainError
from posttrain.nets.architecture import Architecture
from posttrain.policies.pretrained import resolve

VALUES = {"prompts": (4, 8, 16), "samples": (4, 8, 32), "prompt_tokens": (64, 128, 1024), "new_tokens": (32, 128, 512)}
WARM = 8  # tokens of each completion in the unmeasured first turn
PLOT = "docs/pictures/scaling.png"
HEADS = ("rollout: posttrain, tokens/s (of the floor)", "transformers", "GiB", "theirs", "update: posttrain", "TRL",
         "GiB", "theirs")
PEERS = {"rollout": "transformers", "update": "TRL"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__)
    for name, values in VALUES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=positive, nargs="+", default=list(values),
                            help=f"({' '.join(map(str, values))})")
    parser.add_argument("--peer-tokens", type=int, default=3200,
                        help="prompts and completions together, beyond which peers do not run; 0: never (%(default)s)")
    parser.add_argument("--turns", type=positive, default=2, help="measured of each side (%(default)s)")
    parser.add_argument("--draw", action="store_true", help="measure nothing, draw what was measured")
    args = parser.parse_args(argv)
    return exit_code("scaling", draw_kept if args.draw else lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Measure size by size, and publish."""
    require(*(("trl", "psutil") if args.peer_tokens else ("psutil",)))
    load = watch(args.anyway)
    folder = resolve(args.policy)
    machine = inspect(args.precision, args.threads)
    bench = Bench(folder, architecture(args.policy, folder), machine, args.turns, args.timeout, args.anyway)
    found, missing = each(update.sizes(args), lambda size: bench.measure(size, tokens_of(size) <= args.peer_tokens))
    lines = [*tables(found), "", f"![The tables as curves]({Path(PLOT).relative_to('docs')})", "", *missing,
             f"Completion tokens a second. {Path(args.policy).name}, medians of at most {args.turns} turns; "
             f"{where(machine, 'trl', 'transformers')}; {peaks(machine)}; others used {load:.2f} cores before the "
             "start."]
    publish("scaling", {"machine": machine, "sizes": found}, lines, args.anyway)
    if not args.anyway and drawable():
        draw_kept()


def tokens_of(size: Mapping[str, int]) -> int:
    """Of a batch in which every completion has its prompt beside it, as peers compute it."""
    return size["prompts"] * size["samples"] * (size["prompt_tokens"] + size["new_tokens"])


@dataclass(frozen=True)
class Bench:
    """Measures both halves of a step, each side a process of its own."""

    folder: Path  # of the model
    arch: Architecture
    machine: Mapping[str, Any]
    turns: int
    timeout: float
    anyway: bool  # disturbed turns count too

    def measure(self, size: Mapping[str, int], peers: bool) -> dict[str, Any]:
        """{"size", "rollout", "update"}; of each half, by side: tokens a second, share of the floor, peak memory.

        Raises:
            PosttrainError: a side failed, others disturbed every turn, or two sides did not do the same.
        """
        work = self.sampling(size)
        turns = rollout.measure(work, [PEERS["rollout"]] if peers else [], self.turns, self.timeout)
        return self.both(size, work, turns, peers)

    def both(self, size: Mapping[str, int], work: Work, turns: rollout.Turns, peers: bool) -> dict[str, Any]:
        """The same, of which the sampling has been measured."""
        found = {"size": dict(size), "rollout": rollout.collect(turns, work, self.floor, self.anyway),
                 "update": self.learnt(size, peers)}
        print("  ".join([*map(str, size.values()), *cells(found)]), file=sys.stderr, flush=True)
        return found

    @property
    def floor(self) -> Floor:
        return floor_of(self.arch, self.machine)

    def learnt(self, size: Mapping[str, int], peers: bool) -> dict[str, Any]:
        """By side, of the update."""
        counted = chosen(update.measure(self.workload(size), self.timeout, not peers), self.anyway)
        updated = compare(counted, [self.floor.update] * len(counted))
        return {side: {"seconds": told["seconds"], "rate": told["tokens"] / told["seconds"], "share": told["share"],
                       "peak_gib": told["peak_gib"]}
                for side, told in updated.items() if side == "posttrain" or (peers and side == PEERS["update"])}

    def sampling(self, size: Mapping[str, int]) -> Work:
        """As many completions of the same prompts."""
        work = self.workload(size)
        return Work("posttrain", str(self.folder), tuple(map(tuple, work.draw(1).prompts)), work.samples,
                    work.new_tokens, work.precision, work.threads, WARM)

    def workload(self, size: Mapping[str, int]) -> UpdateWorkload:
        """A first, short update and then those that are measured, TRL's in one training pass."""
        return UpdateWorkload(
            str(self.folder), size["prompts"], size["samples"], size["new_tokens"], self.turns + 1,
            self.machine["precision"], self.machine["threads"], True, size["prompts"] * size["samples"], False,
            prompt_tokens=size["prompt_tokens"], shared_tokens=int(update.SHARED * size["prompt_tokens"]),
            vocabulary=self.arch.vocabulary, warm_tokens=WARM)


def cells(found: Mapping[str, Any]) -> list[str]:
    """Of one size, in the order of HEADS; nothing of a peer that did not run."""
    row = []
    for half, peer in PEERS.items():
        ours, theirs = found[half]["posttrain"], found[half].get(peer)
        row += [f"{ours['rate']:.0f} ({ours['share']:.0%})", "" if theirs is None else f"{theirs['rate']:.0f}",
                f"{ours['peak_gib']:.2f}", "" if theirs is None else f"{theirs['peak_gib']:.2f}"]
    return row


def sweeps(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """By option, the sizes in which the others are at their first value, in order; none that has one value only."""
    first = found[0]["size"]
    by_option = {}
    for name in first:
        others = {other: value for other, value in first.items() if other != name}.items()
        rows = {one["size"][name]: one for one in found if others <= one["size"].items()}
        by_option[name] = [rows[value] for value in sorted(rows)]
    return {name: rows for name, rows in by_option.items() if len(rows) > 1}


def tables(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown, one table an option."""
    first, lines = found[0]["size"], list[str]()
    for name, rows in sweeps(found).items():
        held = ", ".join(f"{value} {other.replace('_', ' ')}" for other, value in first.items() if other != name)
        lines += ["", f"{held}:", "", *markdown(
            (name.replace("_", " "), *HEADS), [[str(one["size"][name]), *cells(one)] for one in rows])]
    return lines[1:]


def drawable() -> bool:
    """Whether there is something to draw with; says what to do where there is not."""
    found = importlib.util.find_spec("matplotlib") is not None
    if not found:
        print(f"matplotlib is not installed: where it is, --draw makes {PLOT} of what was measured", file=sys.stderr)
    return found


def draw_kept() -> None:
    """
    Raises:
        PosttrainError: nothing was measured, or nothing can draw it.
    """
    require("matplotlib")
    evidence = ROOT / "evidence/scaling.json"
    if not evidence.exists():
        raise PosttrainError("evidence/scaling.json: does not exist; measure first")
    draw(json.loads(evidence.read_text(encoding="utf-8"))["sizes"], ROOT / PLOT)


def draw(found: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A column an option: tokens a second above, peak memory below; both logarithmic but memory."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    columns = sweeps(found)
    figure, axes = plt.subplots(2, len(columns), figsize=(2.6 * len(columns), 4.6), dpi=130, sharey="row",
                                sharex="col", squeeze=False)
    for column, (name, rows) in enumerate(columns.items()):
        for measure, axis in zip(("rate", "peak_gib"), axes[:, column], strict=True):
            for half, colour in (("rollout", "#c2410c"), ("update", "#1d4ed8")):
                for side, style in (("posttrain", "o-"), (PEERS[half], "o:")):
                    points = [(one["size"][name], one[half][side][measure]) for one in rows if side in one[half]]
                    if points:
                        axis.plot(*zip(*points, strict=True), style, color=colour, lw=1.3, ms=3,
                                  alpha=1 if side == "posttrain" else 0.55, label=f"{half}: {side}")
            axis.set_xscale("log", base=2)
            axis.set_xticks([one["size"][name] for one in rows], [str(one["size"][name]) for one in rows])
            axis.minorticks_off()
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=7)
        axes[0, column].set_yscale("log", base=2)
        axes[0, column].yaxis.set_major_formatter("{x:.0f}")
        axes[1, column].set_xlabel(name.replace("_", " "), fontsize=8)
    axes[1, 0].set_ylim(bottom=0)  # of all columns, once their points are known
    axes[0, 0].set_ylabel("completion tokens a second", fontsize=8)
    axes[1, 0].set_ylabel("peak memory, GiB", fontsize=8)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, fontsize=8, ncols=4, loc="upper left")
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
