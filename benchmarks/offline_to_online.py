"""Fine-tune offline runs by WSRL and E2O, and learn beside logged data by RLPD, each against its stated baseline.

    python benchmarks/offline_to_online.py                  # docs/control.md's table, in about half an hour
    python benchmarks/offline_to_online.py --seconds 100    # as much as begins in that time; the same command goes on

Pendulum-v1.  A half-trained SAC logs the data, one CQL run for each seed learns from it, and every row but the last
two begins with that run's networks.  All take 2000 actions, those of a warm-up or of chance included, and are measured
after 750, 1000, …, 2000 of them by ten episodes from the same starts; a row's score in a seed is the mean of those six.
A claim is that one row's score is above another's: reproduced if the 95% interval of the difference between paired
seeds (Student's t) is above 0, not reproduced if it is below, else inconclusive.  Runs are made in this process, on one
thread; one that is there already, made with the same options, is not repeated, and one that was interrupted goes on.
Once none is missing: evidence/NAME.json for each claim, and the table between the marks in docs/control.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learning import MARKS, check_same, plain, write
from seeds import machine, mean_interval

import posttrain
from posttrain.core import catalog
from posttrain.train.datasets import make_dataset

ROOT = Path(__file__).parents[1]
TASK = "Pendulum-v1"
ACTIONS, BEGUN, EVERY = 2000, 500, 250  # of a run; before anything is learnt; between evaluations
EPISODES = 10
COMMON: dict[str, Any] = {"task": TASK, "policy": "squashed-gaussian", "width": 64, "layers": 2, "activation": "relu",
                          "lr": 1e-3, "lr_schedule": "constant", "eval_episodes": EPISODES, "checkpoint_every": 1,
                          "keep_checkpoints": 1}
MEDIUM: dict[str, Any] = {"method": "sac", "random_steps": 500, "batch_size": 128, "rounds": 500, "steps": 5,
                          "seed": 100}
OFFLINE: dict[str, Any] = {"method": "cql", "members": 5, "layer_norm": True, "batch_size": 64, "rounds": 500,
                           "steps": 3}
TUNED: dict[str, Any] = {"members": 5, "layer_norm": True, "batch_size": 128, "random_steps": 0, "policy_steps": BEGUN}
ROWS: dict[str, dict[str, Any]] = {  # name -> what differs from COMMON
    "wsrl": {**TUNED, "replay_ratio": 4, "policy_every": 4},
    "wsrl-cold": {**TUNED, "method": "wsrl", "replay_ratio": 4, "policy_every": 4, "policy_steps": 0},
    "e2o": {**TUNED, "doubt": 20.0, "optimism": 1.0},
    "e2o-authors": {**TUNED, "method": "e2o", "doubt": 10.0, "optimism": 10.0},  # as in the authors' code
    "cql-on": {**TUNED, "method": "cql", "batch_size": 64, "dataset_share": 0.5},
    "rlpd": {**TUNED, "random_steps": BEGUN, "policy_steps": 0, "replay_ratio": 4, "policy_every": 4},
    "redq": {"members": 5, "batch_size": 128, "random_steps": BEGUN, "replay_ratio": 4, "policy_every": 4},
}
ANEW = ("rlpd", "redq")  # rows that begin with no other run
RETAIN = ("rlpd", "cql-on")  # rows that learn from logged transitions too
CLAIMS = {  # method -> the row that it is claimed to be above, and the claim
    "wsrl": ("cql-on", "without logged rows, learns faster than the offline method that goes on with half of each "
                       "batch logged (2412.07762, abstract)"),
    "e2o": ("cql-on", "learns faster than the offline method that goes on with its pessimism (2306.06871, sec. 3.1)"),
    "rlpd": ("redq", "learns faster than the same method without the data (2302.02948, abstract)"),
}
BESIDE = (("wsrl", "wsrl-cold", "with a warm-up, against the same without"),  # compared, without a verdict of its own
          ("e2o-authors", "cql-on", "the same with its authors' T and λ"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which no further run begins")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/offline-to-online"))
    arguments = parser.parse_args(argv)
    until, out = time.monotonic() + arguments.seconds, arguments.out
    data = logged(out, until)
    found: dict[tuple[str, int], Any] = {}
    for seed in range(arguments.seeds):
        begun = data and run({**OFFLINE, "dataset": (str(data),), "seed": seed}, out / f"cql-{seed}", until)
        for name in ROWS:
            found[name, seed] = begun and run(options(name, seed, out), out / f"{name}-{seed}", until)
    missing = sum(row is None for row in found.values())
    if missing:
        print(f"{missing} of {len(found)} runs are missing; the same command goes on")
        return 3
    seeds = range(arguments.seeds)
    report(out, {name: [scored(found[name, seed]) for seed in seeds] for name in ROWS}, len(seeds))
    return 0


def logged(out: Path, until: float) -> Path | None:
    """The dataset of a policy that is half trained; None while there is no time for it."""
    folder = out / "data"
    if not folder.is_dir():
        if run(dict(MEDIUM), out / "medium", until) is None:
            return None
        make_dataset(TASK, folder, kind="medium", policy=str(out / "medium"), steps=10_000, seed=0, expert="",
                     reference_episodes=20)
    return folder


def options(name: str, seed: int, out: Path) -> dict[str, Any]:
    """Of a row: its method, and all that the run is told.  `steps` ends it after ACTIONS actions."""
    own = dict(ROWS[name])
    ratio = own.get("replay_ratio", 1)
    acted = own["random_steps"] + own.get("policy_steps", 0)
    asked = {"method": name, **own, "rounds": EVERY * ratio, "steps": (ACTIONS - acted) // EVERY, "eval_every": 1,
             "seed": seed}
    if name in RETAIN:
        asked |= {"dataset": (str(out / "data"),), "dataset_share": 0.5}
    return asked if name in ANEW else {**asked, "start_from": str(out / f"cql-{seed}")}


def run(asked: Mapping[str, Any], folder: Path, until: float) -> list[dict[str, Any]] | None:
    """The evaluations of a run, which is made unless it is there; None where it would begin too late.

    Raises:
        SystemExit: if the folder holds a run with other options.
    """
    asked = {**COMMON, **asked}
    begun = (folder / "config.json").exists()
    if begun:
        check_same(folder, asked)
    if not (folder / "summary.json").exists():
        if time.monotonic() > until:
            return None
        given = {} if begun else {key: value for key, value in asked.items() if key != "method"}
        posttrain.train(asked["method"], **given, out=str(folder), resume=begun)
    lines = (folder / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def scored(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of a run: its returns before and after, the lowest on the way, and the mean over common numbers of actions."""
    returns = [row["return"] for row in rows]
    late = returns[-((ACTIONS - BEGUN) // EVERY):]  # a run without a warm-up has been measured earlier too
    return {"before": returns[0], "after": returns[-1], "lowest": min(returns), "score": sum(late) / len(late),
            "returns": returns}


def verdict(difference: Sequence[float]) -> tuple[str, tuple[float, float]]:
    """Of paired seeds: what the interval of their mean says, and that interval."""
    mean, half = mean_interval(difference)
    low, high = mean - half, mean + half
    return ("reproduced" if low > 0 else "not reproduced" if high < 0 else "inconclusive"), (low, high)


def report(out: Path, found: Mapping[str, Sequence[Mapping[str, Any]]], seeds: int) -> None:
    told = json.loads((out / "data/posttrain.json").read_text(encoding="utf-8"))
    offline = [row["before"] for row in found["wsrl"]]
    compared = []
    for ours, (theirs, claim) in CLAIMS.items():
        compared.append(compare(ours, theirs, claim, found))
        write(ROOT / f"evidence/{ours}.json", json.dumps({
            "paper": catalog.find(ours).citation.arxiv, **compared[-1], "task": TASK, "seeds": seeds,
            "command": f"python benchmarks/offline_to_online.py --seeds {seeds}", "machine": machine(),
            "common": plain(COMMON), "offline": plain(OFFLINE),
            "data": {key: told[key] for key in ("kind", "steps", "returns")},
            "rows": {name: {"own": plain(ROWS[name]), "runs": found[name]} for name in (ours, theirs)}},
            indent=1) + "\n")
    compared += [compare(*row, found) for row in BESIDE]
    lines = table(found, compared, told, offline)
    print("\n".join(lines))
    page = ROOT / "docs/control.md"
    head, begin, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    _, end, tail = rest.partition(MARKS[1])
    if begin and end:
        write(page, "\n".join([head + begin, *lines, end + tail]))


def compare(ours: str, theirs: str, claim: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    pairs = zip(found[ours], found[theirs], strict=True)
    difference = [one["score"] - other["score"] for one, other in pairs]
    said, interval = verdict(difference)
    return {"method": ours, "baseline": theirs, "claim": claim, "verdict": said, "difference": difference,
            "mean_difference": sum(difference) / len(difference), "interval": interval}


def table(found: Mapping[str, Sequence[Mapping[str, Any]]], compared: Sequence[Mapping[str, Any]],
          told: Mapping[str, Any], offline: Sequence[float]) -> list[str]:
    """Lines of Markdown."""
    def mean(values: Sequence[float]) -> str:
        middle, half = mean_interval(values)
        return f"{middle:.0f} ± {half:.0f}"

    lines = ["| row | before | lowest on the way | after 2000 actions | mean of 750 to 2000 |", "|---|---|---|---|---|"]
    for name, runs in found.items():
        columns = " | ".join(mean([row[key] for row in runs]) for key in ("before", "lowest", "after", "score"))
        lines.append(f"| `{name}` | {columns} |")
    lines += ["", "| claim | difference in the mean, 95% interval | verdict |", "|---|---|---|"]
    for row in compared:
        low, high = row["interval"]
        lines.append(f"| `{row['method']}` over `{row['baseline']}`: {row['claim']} | {row['mean_difference']:+.0f} "
                     f"[{low:+.0f}, {high:+.0f}] | {row['verdict']} |")
    lines += ["", f"Returns on {TASK}, means over {len(offline)} seeds ± 95% (Student's t); the data, {told['steps']} "
              f"transitions, return {told['returns']['mean']:.0f}, and CQL's runs on it {mean(offline)}.  "
              f"One thread, on {machine()}."]
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
