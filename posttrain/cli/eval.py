"""`posttrain eval RUN|MODEL`: measure a policy on held-out problems."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain.cli.options import Parser
from posttrain.core.errors import UserError
from posttrain.core.source import Field
from posttrain.core.types import Count, Natural, Positive

OPTIONS = (
    Field("task", str, "", "a task's name, a .jsonl file, or module:function; of a run: its own task"),
    Field("problems", Count, 200, "held-out problems"),
    Field("samples", Count, 1, "completions per problem; more than 1 also gives pass@k"),
    Field("temperature", Positive, 1.0, "of sampling"),
    Field("seed", Natural, 0, "of problems and samples"),
)


def make_parser() -> Parser:
    parser = Parser("eval RUN|MODEL", "Measure a policy on a task's held-out problems, with intervals.", [
        "posttrain eval runs/grpo-addition-0",
        "posttrain eval smollm2-135m --task addition --problems 500",
        "posttrain eval runs/mine --task addition --samples 8 --json"])
    parser.add_argument("target", metavar="RUN|MODEL", help="a run folder, or whatever --policy takes")
    parser.declare("evaluation", OPTIONS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(arguments: Sequence[str]) -> int:
    found, given = make_parser().read(arguments)
    settings = {f.name: f.default for f in OPTIONS} | given
    task = settings.pop("task") or _own_task(found.target)

    from posttrain.evaluate.policy import evaluate_policy

    results = evaluate_policy(found.target, task, **settings)
    if found.json:
        print(json.dumps(results))
    else:
        print_results(results)
    return 0


def _own_task(target: str) -> str:
    from posttrain.cli.resolve import read_run

    if not (Path(target) / "config.json").is_file():
        raise UserError(f"task is missing: {target} is no run, so say which, as in --task addition")
    return str(read_run(Path(target)).config["task"])


def print_results(results: dict[str, Any]) -> None:
    """One result a line, `name value`."""
    for name, value in results.items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        sys.stdout.write(f"{name:<24} {text}\n")
