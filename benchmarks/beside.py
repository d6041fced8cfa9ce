"""Returns of control methods beside Stable-Baselines3's and d3rlpy's: the same task, data, length, seeds and measure.

    pip install -e ".[control]" stable-baselines3 d3rlpy
    python benchmarks/beside.py --actions 100000
    python benchmarks/beside.py td3-bc iql --seeds 1

SAC and TD3 act on HalfCheetah-v4, DQN on CartPole-v1; TD3+BC, IQL and CQL learn from the project's own medium, replay
and expert sets on Pendulum-v1, which are made first, by a SAC run.  Each library is at its own defaults, but for DQN:
there both have rl-zoo's settings.  A run that is there already is not repeated.  Writes evidence/beside.json and the
table between the second marks of docs/reference.md.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from learning import between, merged, run, write
from reference import ROWS
from seeds import machine, mean_interval
from versus.peer_returns import Work
from versus.side import environment

ROOT = Path(__file__).parents[1]
KINDS = ("medium", "replay", "expert")
ACTING, LOGGED = {"sac": "HalfCheetah-v4", "td3": "HalfCheetah-v4", "dqn": "CartPole-v1"}, ("td3-bc", "iql", "cql")
LOGGED_ON = "Pendulum-v1"
DQN_ACTIONS = 50_000
ZOO_DQN = {  # what docs/reference.md's row dqn-cartpole has, in Stable-Baselines3's words
    "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "target_update_interval": 10, "train_freq": 256,
    "gradient_steps": 128, "exploration_fraction": 0.16, "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]}}
BEHAVIOUR = {"method": "sac", "task": LOGGED_ON, "steps": 10, "lr": 1e-3, "random_steps": 1000, "seed": 1000,
             "checkpoint_every": 5, "keep_checkpoints": 2, "eval_episodes": 50, "threads": 1}
HALF = 2  # steps of the behaviour whose set is called medium


class Pairing(NamedTuple):
    """One method in both libraries."""

    method: str
    task: str
    length: int
    kind: str = ""  # of dataset

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.method, self.kind)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join((*ACTING, *LOGGED))}; all if none")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--actions", type=int, default=100_000, help="of SAC and TD3 (%(default)s)")
    parser.add_argument("--updates", type=int, default=5000, help="on logged data (%(default)s)")
    parser.add_argument("--data", nargs="+", choices=KINDS, default=KINDS, help="logged sets (all)")
    parser.add_argument("--out", type=Path, default=Path("runs/beside"))
    args = parser.parse_args(argv)
    chosen = args.methods or [*ACTING, *LOGGED]
    unknown = [name for name in chosen if name not in (*ACTING, *LOGGED)]
    if unknown:
        parser.error(f"method = {unknown[0]!r}: must be one of {', '.join((*ACTING, *LOGGED))}")
    pairings = [Pairing(m, ACTING[m], DQN_ACTIONS if m == "dqn" else args.actions) for m in ACTING if m in chosen]
    pairings += [Pairing(m, LOGGED_ON, args.updates, kind) for m in LOGGED if m in chosen for kind in args.data]
    if any(pairing.kind for pairing in pairings):
        make_datasets(args.out)
    found = {f"{pairing.name} {pairing.length}": both(pairing, args.seeds, args.out) for pairing in pairings}
    evidence = ROOT / "evidence/beside.json"
    result = merged(evidence, {"command": "python benchmarks/beside.py", "machine": machine(), "methods": found})
    write(evidence, json.dumps(result, indent=1) + "\n")
    lines = table(result)
    print("\n".join(lines))
    page = ROOT / "docs/reference.md"
    write(page, between(page.read_text(encoding="utf-8"), lines, "beside"))
    return 0


def make_datasets(out: Path) -> None:
    """Two behaviours, one trained half as well, and of them the three sets."""
    run("behaviour", BEHAVIOUR, out / "behaviour")
    run("half behaviour", {**BEHAVIOUR, "steps": HALF, "checkpoint_every": 100}, out / "half-behaviour")
    for kind in KINDS:
        behaviour = out / ("half-behaviour" if kind == "medium" else "behaviour")
        if not (out / kind).exists():
            subprocess.run([sys.executable, "-m", "posttrain", "data", "make", LOGGED_ON, "--kind", kind, "--policy",
                            str(behaviour), "--expert", str(out / "behaviour"), "--steps", "10000", "--out",
                            str(out / kind)],
                           check=True, timeout=600)


def both(pairing: Pairing, seeds: int, out: Path) -> dict[str, Any]:
    """All seeds of one method in both libraries."""
    ours, theirs = [], []
    for seed in range(seeds):
        label = f"{pairing.name.replace(' ', '-')}-{pairing.length}-{seed}"
        ours.append(run(label, options(pairing, seed, out), out / label))
        theirs.append(peer(pairing, seed, out, out / f"{label}-peer.json"))
        print(f"{label}: the peer {theirs[-1]['return']:.1f}", flush=True)
    return {"peer": "d3rlpy" if pairing.kind else "Stable-Baselines3", "length": pairing.length, "name": pairing.name,
            "task": pairing.task, "ours": [one["after"]["return"] for one in ours],
            "theirs": [one["return"] for one in theirs],
            "seconds": [[one["training_seconds"] for one in ours], [one["seconds"] for one in theirs]]}


def options(pairing: Pairing, seed: int, out: Path) -> dict[str, Any]:
    """What posttrain is told: its own defaults beside this."""
    common = {"method": pairing.method, "task": pairing.task, "seed": seed, "threads": 1, "eval_episodes": 50,
              "checkpoint_every": 100}
    if pairing.kind:
        return {**common, "dataset": (str(out / pairing.kind),), "rounds": 500, "steps": pairing.length // 500}
    if pairing.method == "dqn":
        return {**common, **ROWS["dqn-cartpole"].options, "steps": (pairing.length - 1000) // 2000}
    return {**common, "rounds": 1000, "random_steps": 1000, "steps": pairing.length // 1000 - 1}


def peer(pairing: Pairing, seed: int, out: Path, kept: Path) -> dict[str, Any]:
    """The peer's run, or what it said when it was run before.

    Raises:
        SystemExit: if it fails.
    """
    if not kept.exists():
        work = Work(pairing.method, pairing.task, pairing.length, seed, str(out / pairing.kind) if pairing.kind else "",
                    options=ZOO_DQN if pairing.method == "dqn" else {})
        done = subprocess.run([sys.executable, "-m", "versus.peer_returns", work.dump()], env=environment(1),
                              capture_output=True, text=True, check=False, timeout=7200)
        if done.returncode:
            raise SystemExit(f"{kept.stem}: {done.stderr.strip().splitlines()[-1]}")
        told = json.loads(done.stdout.splitlines()[-1])
        write(kept, json.dumps({**told, "return": sum(told["scores"]) / len(told["scores"])}))
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def table(result: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| method | on | posttrain | peer | | seconds, median of runs |", "|---|---|---|---|---|---|"]
    for row in result["methods"].values():
        unit = "updates" if row["peer"] == "d3rlpy" else "actions"
        ours, theirs = (sorted(column)[len(column) // 2] for column in row["seconds"])
        lines.append(f"| `{row['name']}` | {row['task']}, {row['length']:,} {unit} | {told(row['ours'])} "
                     f"| {told(row['theirs'])} | {row['peer']} | {ours:.0f}, {theirs:.0f} |")
    return [*lines, "", "Mean return of the final policy over 50 episodes from the same initial states; ±: 95% over "
            f"seeds (Student's t), each in brackets.  {result['machine']}."]


def told(returns: Sequence[float]) -> str:
    mean, half = mean_interval(returns)
    return (f"{mean:.4g}" + (f" ± {half:.3g}" if math.isfinite(half) else "")
            + f" ({', '.join(f'{x:.4g}' for x in returns)})")


if __name__ == "__main__":
    raise SystemExit(main())
