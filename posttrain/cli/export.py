"""`posttrain export RUN DIR`: a Hugging Face folder that any tool can load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from posttrain.cli.options import Parser
from posttrain.core.source import Field

OPTIONS = (Field("precision", Literal["fp32", "bf16"], "bf16", "of the stored weights"),)


def make_parser() -> Parser:
    parser = Parser("export RUN DIR", "Write a run's policy as a Hugging Face folder that any tool can load.",
                    ["posttrain export runs/grpo-addition-0 exported",
                     "posttrain export runs/mine exported --precision fp32"])
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder")
    parser.add_argument("folder", metavar="DIR", type=Path, help="to be made; nothing is overwritten")
    parser.declare("weights", OPTIONS)
    return parser


def run(arguments: Sequence[str]) -> int:
    found, given = make_parser().read(arguments)

    from posttrain.policies.export import export

    print(export(found.run, found.folder, given.get("precision", "bf16")))
    return 0
