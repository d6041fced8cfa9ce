"""Train control methods as long as published runs were, several seeds each, and set the figures side by side.

    python benchmarks/reference.py                       # every row of docs/reference.md
    python benchmarks/reference.py ppo-hopper --seeds 1  # one row, one seed
    python benchmarks/reference.py --list                # the rows, with what each asks for

Each run is one `posttrain train` process on one thread; as many go at a time as `--jobs` says.  A run that is there
already, made with the same options, is not repeated, and one that was interrupted goes on.  Writes
evidence/reference.json, where rows measured earlier stay if the machine is the same, and the table between the two
marks in docs/reference.md.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from learning import between, merged, run, write
from seeds import machine, mean_interval

ROOT = Path(__file__).parents[1]
ZOO, CLEANRL = "rl-zoo", "CleanRL"
SEEDS = 3
LAST = 0.1  # of the training, whose episodes are averaged


class Row(NamedTuple):
    """A method on a task for as many actions as the published figure had."""

    method: str
    task: str
    actions: int
    published: str
    source: str
    options: Mapping[str, Any] = {}  # beside the method's defaults; those of the published run where they have a name


FREE = {"value_clip": 1e6, "normalize_obs": False, "normalize_reward": False}  # Stable-Baselines3's defaults
ROWS = {
    "ppo-halfcheetah": Row("ppo", "HalfCheetah-v4", 1_000_000, "1443 ± 46", CLEANRL),
    "ppo-hopper": Row("ppo", "Hopper-v4", 1_000_000, "2383 ± 272", CLEANRL),
    "ppo-pendulum": Row("ppo", "Pendulum-v1", 100_000, "-172", ZOO, {
        "envs": 4, "segment": 1024, "minibatches": 64, "discount": 0.9, "lr": 1e-3, "lr_schedule": "constant", **FREE}),
    "ppo-cartpole": Row("ppo", "CartPole-v1", 100_000, "500", ZOO, {
        "envs": 8, "segment": 32, "minibatches": 1, "epochs": 20, "discount": 0.98, "decay": 0.8, "lr": 1e-3, **FREE}),
    "sac-pendulum": Row("sac", "Pendulum-v1", 20_000, "-157", ZOO, {"lr": 1e-3, "random_steps": 100}),
    "td3-pendulum": Row("td3", "Pendulum-v1", 20_000, "-152", ZOO, {"lr": 1e-3, "discount": 0.98}),
    "ddpg-pendulum": Row("ddpg", "Pendulum-v1", 20_000, "-152", ZOO, {"lr": 1e-3, "discount": 0.98}),
    "dqn-cartpole": Row("dqn", "CartPole-v1", 50_000, "500", ZOO, {
        "lr": 2.3e-3, "width": 256, "envs": 2, "epsilon_rounds": 4000, "epsilon": 0.04}),  # 2 actions an update
    "dqn-acrobot": Row("dqn", "Acrobot-v1", 100_000, "-77", ZOO, {
        "lr": 6.3e-4, "batch_size": 128, "width": 256, "epsilon_rounds": 12_000, "epsilon": 0.1, "copy_every": 250}),
    "sac-mountaincar": Row("sac", "MountainCarContinuous-v0", 50_000, "94.7", ZOO, {
        "batch_size": 512, "width": 64, "discount": 0.9999, "polyak": 0.01, "exploration": 0.5,
        "exploration_memory": 0.9}),  # gSDE there; noise that is new in each action misses the goal in one run of three
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="all if none")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/reference"))
    parser.add_argument("--list", action="store_true", help="print what each row asks for, and run nothing")
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.rows if name not in ROWS]
    if unknown:
        parser.error(f"row = {unknown[0]!r}: must be one of {', '.join(ROWS)}")
    names = arguments.rows or list(ROWS)
    if arguments.list:
        print("\n".join(f"{name}: {told(options(name))}" for name in names))
        return 0
    todo = [(name, seed) for seed in range(arguments.seeds) for name in names]

    def one(name: str, seed: int) -> dict[str, Any]:
        out = arguments.out / f"{name}-{seed}"
        return {**run(f"{name}-{seed}", {**options(name), "seed": seed}, out), "trained": last_returns(out)}

    with ThreadPoolExecutor(arguments.jobs) as pool:
        done = list(pool.map(lambda asked: one(*asked), todo))
    found = {name: collect(name, [row for (other, _), row in zip(todo, done, strict=True) if other == name])
             for name in names}
    evidence = ROOT / "evidence/reference.json"
    result = merged(evidence, {"command": "python benchmarks/reference.py", "machine": machine(), "methods": found})
    write(evidence, json.dumps(result, indent=1) + "\n")
    lines = table(result)
    print("\n".join(lines))
    page = ROOT / "docs/reference.md"
    write(page, between(page.read_text(encoding="utf-8"), lines))
    return 0


def options(name: str) -> dict[str, Any]:
    """All that the run is told but its seed."""
    from posttrain.core import catalog

    row = ROWS[name]
    told = {**catalog.make(row.method).defaults["control"], **row.options}
    a_step = (told.get("segment", 2048) if row.method == "ppo" else told.get("rounds", 1)) * told.get("envs", 1)
    first = 0 if row.method == "ppo" else told.get("random_steps", 1000)
    return {"method": row.method, "task": row.task, "threads": 1, "eval_episodes": 50, "checkpoint_every": 20,
            "steps": round((row.actions - first) / a_step), **row.options}


def told(options: Mapping[str, Any]) -> str:
    return " ".join([f"posttrain train {options['method']}", *(
        f"--{key.replace('_', '-')} {value}" for key, value in options.items() if key != "method")])


def last_returns(out: Path) -> float:
    """The mean return of the episodes that ended in the last tenth of training, explored as they were."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    seen = [row["reward"] for row in rows[-max(1, round(LAST * len(rows))):] if "reward" in row]
    return sum(seen) / len(seen) if seen else math.nan


def collect(name: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All seeds of one row."""
    row, after = ROWS[name], [one["after"]["return"] for one in runs]
    return {"method": row.method, "task": row.task, "actions": row.actions, "published": row.published,
            "source": row.source, "options": dict(row.options), "after": after, "mean_after": mean_interval(after),
            "trained": [one["trained"] for one in runs], "seconds": [one["training_seconds"] for one in runs]}


def table(result: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| row | actions | published | ours, mean of seeds | each seed | while training |",
             "|---|---|---|---|---|---|"]
    for name, row in result["methods"].items():
        mean, half = row["mean_after"]
        spread = f" ± {half:.4g}" if math.isfinite(half) else ""
        lines.append(f"| `{name}` | {row['actions']:,} | {row['published']} ({row['source']}) | {mean:.4g}{spread} "
                     f"| {', '.join(f'{x:.4g}' for x in row['after'])} "
                     f"| {', '.join(f'{x:.4g}' for x in row['trained'])} |")
    return [*lines, "", "Return of the final policy's likeliest actions over 50 episodes; ±: 95% over seeds "
            "(Student's t).  While training: mean of the episodes that ended in the last tenth, explored.  "
            f"{result['machine']}."]


if __name__ == "__main__":
    raise SystemExit(main())
