"""Train methods on the tiny model, several seeds each, and say what every one of them learned.

    python benchmarks/learning.py                        # the ten methods of docs/learning.md, five seeds each
    python benchmarks/learning.py grpo gspo --seeds 3 --out runs/two
    python benchmarks/learning.py --page masked          # the rows of docs/masked.md

Each run is one `posttrain train` process on one thread; as many go at a time as there are cores (`--jobs`).  A run that
is there already, made with the same options, is not repeated, and one that was interrupted goes on.  Writes
evidence/PAGE.json, where methods measured earlier stay if machine and common options are the same, and the table
between the two marks in docs/PAGE.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from seeds import machine, mean_interval

ROOT = Path(__file__).parents[1]
MARKS = ("<!-- begin table -->", "<!-- end table -->")
RUN_SECONDS = 7200.0

COMMON: dict[str, Any] = {
    "policy": "tiny-char", "task": "char-addition", "precision": "fp32", "threads": 1, "prompts": 128, "samples": 8,
    "minibatches": 2, "lr": 6e-4, "warmup": 10, "betas": (0.9, 0.99), "steps": 120, "eval_problems": 805,
    "checkpoint_every": 1000,
}
METHODS: dict[str, dict[str, Any]] = {  # name -> what differs from its defaults and from COMMON
    "grpo": {"kl_coef": 0.0},
    "dr-grpo": {},
    "dapo": {},
    "gspo": {},
    "cispo": {},
    "rloo": {"kl_coef": 0.0},
    "reinforce-pp": {"kl_coef": 0.0},
    "sapo": {},
    "opo": {},
    "maxrl": {},
}
LONGER: dict[str, dict[str, Any]] = {  # rows that go on until nearly everything is learnt; `method` names theirs
    "grpo-250": {"method": "grpo", "kl_coef": 0.0, "minibatches": 1, "lr": 8e-4, "warmup": 20, "steps": 250},
}
MASKED: dict[str, Any] = {
    "policy": "tiny-masked", "task": "char-addition", "precision": "fp32", "threads": 1, "prompts": 128, "samples": 8,
    "lr": 3e-4, "steps": 40, "eval_problems": 805, "checkpoint_every": 1000,
}
MASKED_METHODS: dict[str, dict[str, Any]] = {
    "d1": {"prompt_mask": 0.0, "epochs": 2, "kl_coef": 0.0},
    "d1-authors": {"method": "d1", "prompts": 32, "steps": 24},  # with all that it sets by itself
    "cj-grpo-3": {"method": "cj-grpo", "epochs": 1, "kl_coef": 0.0, "passes": 3},
    "co-grpo": {"passes": 3, "steps": 80},  # half of its steps are the schedule's
}


class Page(NamedTuple):
    """A table: what its runs have in common, and what differs from row to row."""

    common: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]


PAGES = {"learning": Page(COMMON, METHODS | LONGER), "masked": Page(MASKED, MASKED_METHODS)}
REACHED = 0.7  # by every one of METHODS, in one seed: the test marked slow


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", choices=PAGES, default="learning", help="of docs/ (%(default)s)")
    parser.add_argument("methods", nargs="*", metavar="METHOD",
                        help="as posttrain methods lists them, or grpo-250; all of the page if none")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="runs are in OUT/PAGE (%(default)s)")
    arguments = parser.parse_args(argv)
    page = PAGES[arguments.page]
    names = arguments.methods or list(page.rows)
    todo = [(name, seed) for name in names for seed in range(arguments.seeds)]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        done = list(pool.map(lambda one: run("{}, seed {}".format(*one), options(*one, page),
                                             arguments.out / arguments.page / "{}-{}".format(*one)), todo))
    found = {name: collect([row for (other, _), row in zip(todo, done, strict=True) if other == name])
             for name in names}
    evidence = ROOT / f"evidence/{arguments.page}.json"
    command = "python benchmarks/learning.py" + (f" --page {arguments.page}" if arguments.page != "learning" else "")
    result = merged(evidence, {
        "command": command, "machine": machine(), "jobs": arguments.jobs,
        "common": plain(page.common),
        "methods": {name: {"own": page.rows.get(name, {}), **found[name]} for name in names}})
    write(evidence, json.dumps(result, indent=1) + "\n")
    lines = table(result)
    print("\n".join(lines))
    text = ROOT / f"docs/{arguments.page}.md"
    write(text, between(text.read_text(encoding="utf-8"), lines))
    return 0


def merged(evidence: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The result, with the methods that were measured before in the same way."""
    earlier = json.loads(evidence.read_text(encoding="utf-8")) if evidence.exists() else {}
    if all(earlier.get(key) == value for key, value in result.items() if key != "methods"):
        result["methods"] = {**earlier["methods"], **result["methods"]}
    return result


def options(name: str, seed: int, page: Page = PAGES["learning"]) -> dict[str, Any]:
    """Of the row called `name`: its method, and all that the run is told."""
    return {"method": name, **page.common, **page.rows.get(name, {}), "seed": seed}


def run(label: str, asked: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Train as asked, `method` and options, and return the summary; the one that is there where it was run already.

    Raises:
        SystemExit: if the folder holds a run with other options, or the run fails.
    """
    if (out / "config.json").exists():
        check_same(out, asked)
        command = ["--resume", str(out)]
    else:
        given = [word for key, value in asked.items() if key != "method" for word in (flag(key), text(value))]
        command = [asked["method"], *given, "--out", str(out)]
    if not (out / "summary.json").exists():
        done = subprocess.run([sys.executable, "-m", "posttrain", "train", *command], check=False,
                              capture_output=True, text=True, timeout=RUN_SECONDS)
        if done.returncode:
            raise SystemExit(f"{label}: {done.stderr.strip().splitlines()[-1]}")
        told = next(line for line in reversed(done.stdout.splitlines()) if "% interval" in line)
        print(f"{label}: {told}", flush=True)
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check_same(out: Path, asked: Mapping[str, Any]) -> None:
    told = json.loads((out / "config.json").read_text())
    stored = {"method": told["method"], **told["config"], **told["hyperparameters"]}
    for key, value in plain(asked).items():
        if stored[key] != value:
            raise SystemExit(f"{out}: was run with {key} = {stored[key]!r}, not {value!r}; give another --out")


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has them: tuples are lists."""
    again: dict[str, Any] = json.loads(json.dumps(options))
    return again


def collect(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All seeds of one method."""
    after = [row["after"]["accuracy"] for row in runs]
    return {"before": [row["before"]["accuracy"] for row in runs], "after": after,
            "mean_after": mean_interval(after), "kl": [row["after"]["kl_task"] for row in runs],
            "problems": runs[0]["problems"], "training_seconds": [row["training_seconds"] for row in runs]}


def table(result: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| method | before | after, mean of seeds | lowest seed | seeds | KL, nats a token |",
             "|---|---|---|---|---|---|"]
    for name, row in result["methods"].items():
        mean, half = row["mean_after"]
        spread = f" ± {100 * half:.1f}" if math.isfinite(half) else ""
        lines.append(f"| `{name}` | {sum(row['before']) / len(row['before']):.1%} | {100 * mean:.1f}{spread}% "
                     f"| {min(row['after']):.1%} | {len(row['after'])} | {sum(row['kl']) / len(row['kl']):.2f} |")
    first = next(iter(result["methods"].values()))
    lines += ["", f"{first['problems']} held-out problems, greedy; ±: 95% over seeds (Student's t); "
              f"{result['jobs']} run{'s' * (result['jobs'] > 1)} at a time, one thread each, on {result['machine']}."]
    return lines


def between(page: str, lines: Sequence[str], of: str = "table") -> str:
    """The page with these lines between its two marks of that name."""
    marks = tuple(mark.replace("table", of) for mark in MARKS)
    head, begin, rest = page.partition(marks[0])
    _, end, tail = rest.partition(marks[1])
    if not (begin and end):
        raise SystemExit(f"docs/: the page has no {' … '.join(marks)}")
    return "\n".join([head + begin, *lines, end + tail])


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
