"""`posttrain export RUN DIR`: a Hugging Face folder that any tool can load; of a smaller policy, its two files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from posttrain.cli.options import Parser
from posttrain.core.errors import UserError
from posttrain.core.source import Field

OPTIONS = (Field("precision", Literal["fp32", "bf16"], "bf16", "of a language model's weights"),)


def make_parser() -> Parser:
    parser = Parser("export RUN DIR", "Write a run's policy as a Hugging Face folder that any tool can load;\n"
                    "of a control run or one of pictures, policy.json and weights.safetensors.",
                    ["posttrain export runs/grpo-addition-0 exported",
                     "posttrain export runs/mine exported --precision fp32"])
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder")
    parser.add_argument("folder", metavar="DIR", type=Path, help="to be made; nothing is overwritten")
    parser.declare("weights", OPTIONS)
    return parser


def run(arguments: Sequence[str]) -> int:
    found, given = make_parser().read(arguments)

    if (found.run / "final" / "policy.json").is_file():
        if given:
            raise UserError(f"precision = {given['precision']!r}: this policy is written as it was trained")
        from posttrain.policies.export import copy

        print(copy(found.run / "final", found.folder))
        return 0

    from posttrain.policies.export import export

    print(export(found.run, found.folder, given.get("precision", "bf16")))
    return 0
