"""Are throughput and memory still what they were when completions grow to 2,048 tokens and groups to 64?

    pip install -e ".[benchmarks]"
    python benchmarks/long.py

Sampling and the update of one prompt's group, posttrain alone, each size of each in a process of its own.  The sizes
take turns at sampling, as the machine's speed changes by the minute; then each learns.  A group of 64 with 2,048 tokens
each is measured on a small random model of the same block, vocabulary and tokenizer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from published import markdown, publish, watch
from rollout import alternate
from scaling import Bench
from versus.command import architecture, each, exit_code, inspect, options, positive, require
from versus.floor import kept_per_token, peaks
from versus.summary import GIB, where

from posttrain.nets.architecture import Architecture
from posttrain.policies.pretrained import resolve

SMALL = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 3,
         "num_key_value_heads": 1, "head_dim": 64}
SMALL_SIZES = ((64, 128), (64, 512), (64, 2048))  # completions, tokens of each
PROMPT = 64  # tokens
UPDATES = 1  # measured of each size
HEADS = ("model", "completions", "tokens of each", "sampled, tokens/s (of the floor)", "peak, GiB",
         "of it keys and values", "learnt from, tokens/s (of the floor)", "peak, GiB")


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--new-tokens", type=positive, nargs="+", default=[256, 1024, 2048],
                        help="of each completion, at the first group size (256 1024 2048)")
    parser.add_argument("--samples", type=positive, nargs="+", default=[4, 16, 64],
                        help="of the prompt, at the first length (4 16 64)")
    parser.add_argument("--turns", type=positive, default=3, help="of sampling, of each size (%(default)s)")
    args = parser.parse_args(argv)
    return exit_code("long", lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Measure size by size, and publish."""
    require("psutil")
    load = watch(args.anyway)
    machine = inspect(args.precision, args.threads)
    with tempfile.TemporaryDirectory(prefix="posttrain-benchmark-") as folder:
        whole, whole_name = resolve(args.policy), Path(args.policy).name
        small = write_small(whole, Path(folder) / "small")
        models = {name: Bench(path, architecture(name, path), machine, UPDATES, args.timeout, args.anyway)
                  for name, path in ((whole_name, whole), ("small", small))}
        asked = [*((whole_name, *size) for size in sizes(args.samples, args.new_tokens)),
                 *(("small", *size) for size in SMALL_SIZES)]
        works = [models[name].sampling(size_of(*size)) for name, *size in asked]
        turns = dict(zip(asked, alternate(works, args.turns, args.timeout, {}), strict=True))
        found, missing = each(asked, lambda size: measured(models[size[0]], *size, turns[size]))
    lines = [*markdown(HEADS, [row(one) for one in found]), "", *missing,
             f"One prompt of {PROMPT} tokens. small: {SMALL['num_hidden_layers']} random layers of width "
             f"{SMALL['hidden_size']}. Medians of {args.turns} turns of sampling, and one update, each after a short "
             f"one; {where(machine)}; {peaks(machine)}; others used {load:.2f} cores before the start."]
    publish("long", {"machine": machine, "sizes": found}, lines, args.anyway)


def sizes(samples: Sequence[int], tokens: Sequence[int]) -> list[tuple[int, int]]:
    """Each length at the first group size, then each further group size at the first length."""
    return [*((samples[0], length) for length in tokens), *((group, tokens[0]) for group in samples[1:])]


def size_of(samples: int, tokens: int) -> dict[str, int]:
    """By option."""
    return {"prompts": 1, "samples": samples, "prompt_tokens": PROMPT, "new_tokens": tokens}


def measured(bench: Bench, name: str, samples: int, tokens: int, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """One size of one model, of which these turns of sampling were measured."""
    size = size_of(samples, tokens)
    held = (samples * tokens + PROMPT) * cached_bytes(bench.arch, bench.machine["precision"])
    both = bench.both(size, bench.sampling(size), {"posttrain": turns}, peers=False)
    return {"model": name, "cache_gib": held / GIB, **both}


def cached_bytes(arch: Architecture, precision: str) -> int:
    """A token's keys and values in all layers."""
    return kept_per_token(arch) * (2 if precision == "bf16" else 4)


def row(found: Mapping[str, Any]) -> list[str]:
    """In the order of HEADS."""
    sampled, learnt = found["rollout"]["posttrain"], found["update"]["posttrain"]
    return [found["model"], str(found["size"]["samples"]), f"{found['size']['new_tokens']:,}",
            f"{sampled['rate']:.0f} ({sampled['share']:.0%})", f"{sampled['peak_gib']:.2f}",
            f"{found['cache_gib']:.2f}", f"{learnt['rate']:.0f} ({learnt['share']:.0%})", f"{learnt['peak_gib']:.2f}"]


def write_small(folder: Path, target: Path) -> Path:
    """The model of a folder with SMALL's sizes and random weights, and its own tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    for name, value in SMALL.items():
        setattr(config, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, local_files_only=True).save_pretrained(target)
    return target


if __name__ == "__main__":
    sys.exit(main())
