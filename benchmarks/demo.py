"""Run the demo on several seeds and draw what happened.

    python benchmarks/demo.py --task addition --seeds 5 --out runs/demo-seeds

Each seed is one `posttrain train` process, one after the other, so that the wall time is a user's.  Writes
evidence/demo-TASK.json (every number below, with the command and the machine) and docs/pictures/demo-TASK.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from seeds import machine, mean_interval

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="addition")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/demo-seeds"))
    parser.add_argument("--name", help="of the evidence file and the picture; the task's unless given")
    arguments, options = parser.parse_known_args()
    name = arguments.name or arguments.task.replace("/", "-")
    command = ["train", "grpo", "--policy", "smollm2-135m", "--task", arguments.task, "--kl-coef", "0", *options]
    runs = [run(command, seed, arguments.out / f"{name}-{seed}") for seed in range(arguments.seeds)]
    result = {"command": " ".join(["posttrain", *command, "--seed", "S"]), "machine": machine(), "runs": runs,
              "mean_after": mean_interval([r["after"] for r in runs])}
    path = ROOT / "evidence" / f"demo-{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1))
    draw(result, arguments.out, name)
    for row in runs:
        print(f"seed {row['seed']}: {row['before']:.1%} → {row['after']:.1%} "
              f"[{row['interval'][0]:.0%}, {row['interval'][1]:.0%}] in {row['wall_seconds']:.0f} s all told")
    mean, half = result["mean_after"]
    print(f"mean of {len(runs)} seeds {mean:.1%} ± {half:.1%} (95%, Student's t over seeds) → {path}")


def run(command: list[str], seed: int, out: Path) -> dict[str, Any]:
    """One seed from process start to process end, or its record where it has been run already."""
    if not (out / "summary.json").exists():
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "posttrain", *command, "--seed", str(seed), "--out", str(out)],
                       check=True, timeout=3600)
        (out / "wall.json").write_text(json.dumps(time.monotonic() - started))
    summary = json.loads((out / "summary.json").read_text())
    return {"seed": seed, "before": summary["before"]["accuracy"], "after": summary["after"]["accuracy"],
            "interval": summary["after"]["interval"], "gain_interval": summary["gain_interval"],
            "other_before": summary["before"]["other_skills"], "other_after": summary["after"]["other_skills"],
            "kl_task": summary["after"]["kl_task"], "kl_other": summary["after"]["kl_other"],
            "problems": summary["problems"], "steps": summary["steps"],
            "training_seconds": summary["training_seconds"],
            "wall_seconds": json.loads((out / "wall.json").read_text()),
            "reward": [row["reward"] for row in rows(out / "metrics.jsonl")],
            "heldout": [(row["step"], row["accuracy"]) for row in rows(out / "evaluations.jsonl")]}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def draw(result: dict[str, Any], out: Path, name: str) -> None:
    """Sampled reward of every seed (thin: smoothed over 5 steps), and held-out accuracy as points."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.2), dpi=150)
    for row in result["runs"]:
        reward = row["reward"]
        smooth = [sum(reward[max(0, i - 4): i + 1]) / len(reward[max(0, i - 4): i + 1]) for i in range(len(reward))]
        axes.plot(range(1, len(smooth) + 1), smooth, color="#8aa4c8", lw=1.2,
                  label="reward of sampled answers (mean of 5 steps)" if row["seed"] == 0 else None)
        steps, accuracy = zip(*row["heldout"], strict=True)
        axes.plot(steps, accuracy, "o", color="#c2410c", ms=5, alpha=0.8, clip_on=False,
                  label="held-out accuracy, greedy" if row["seed"] == 0 else None)
    axes.set(xlabel="step", ylabel="share right", ylim=(0, 1), xlim=(0, None))
    axes.set_title(f"SmolLM2-135M learns {result['runs'][0].get('task', name)} with GRPO: "
                   f"{len(result['runs'])} seeds", loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    path = ROOT / "docs/pictures" / f"demo-{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
