"""How near sampling and training come to what a GPU can do: to the bandwidth of its memory, and to its matrix products.

    python benchmarks/gpu.py                                     # smollm2-135m, 64 rows and an update of 8 × 8
    python benchmarks/gpu.py --batch 1 16 64 256 --prompt-tokens 512 --new-tokens 256
    python benchmarks/gpu.py --device cpu --new-tokens 8         # tries the program itself

Sampling is held against the floor of reading every weight, and every key and value that a step looks at, once a step;
an update against `versus/floor.py`: its products at the highest rate that a product of square matrices has here, and
the optimizer's reads and writes.  Both are medians after a warm-up, in which steps are captured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from versus.command import architecture, exit_code, positive
from versus.floor import Floor
from versus.posttrain_update import batch as as_batch
from versus.workload import Drawn

import posttrain
from posttrain.core.errors import UserError
from posttrain.core.placement import device_of
from posttrain.nets.architecture import Architecture
from posttrain.policies.load import LanguageModel, load_language_model
from posttrain.policies.pretrained import resolve
from posttrain.rollout.engine import Sampling
from posttrain.train.learner import Learner
from posttrain.train.loop import Pace
from posttrain.train.optim import FlatAdamW

SQUARE = {"cuda": 8192, "cpu": 1024}  # of the matrices whose product is the peak
COPIED = {"cuda": 1 << 30, "cpu": 1 << 27}  # bytes
SHARED = 0.65  # of a prompt: about the chat template's part


@dataclass(frozen=True)
class Device:
    """What a device can do at most."""

    kind: torch.device
    gflops: float
    gbytes: float

    @classmethod
    def measure(cls, kind: torch.device, dtype: torch.dtype) -> Device:
        n, size = SQUARE[kind.type], COPIED[kind.type]
        a, b = (torch.ones(n, n, dtype=dtype, device=kind) for _ in range(2))
        source = torch.zeros(size, dtype=torch.uint8, device=kind)
        target = torch.empty_like(source)
        product, copy = (min(seconds(work, kind, 10)) for work in (lambda: a @ b, lambda: target.copy_(source)))
        return cls(kind, 2 * n**3 / product / 1e9, 2 * size / copy / 1e9)


def seconds(work: Callable[[], Any], kind: torch.device, turns: int) -> list[float]:
    """Of each turn, after one that warms up, until the device has done all of it."""
    found = []
    for _ in range(turns + 1):
        started = time.perf_counter()
        work()
        if kind.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return found[1:]


def main(argv: Sequence[str] | None = None) -> int:
    """0: measured; 1: not measured, for one reason on standard error; 2: wrong use, or no GPU here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="smollm2-135m", help="as in posttrain train (%(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(%(default)s)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--batch", type=positive, nargs="+", default=[64], help="rows, in groups of at most 8 (64)")
    parser.add_argument("--prompt-tokens", type=positive, default=46, help="of each prompt (%(default)s)")
    parser.add_argument("--new-tokens", type=positive, default=128, help="of each row (%(default)s)")
    parser.add_argument("--turns", type=positive, default=5, help="measured of each (%(default)s)")
    args = parser.parse_args(argv)
    return exit_code("gpu", lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """
    Raises:
        PosttrainError: no GPU, or no fast path for the policy.
    """
    kind, folder = device_of(args.device), resolve(args.policy)
    arch = architecture(args.policy, folder)
    model = load_language_model(folder, max_new_tokens=args.new_tokens, precision=args.precision, device=args.device)
    device = Device.measure(kind, next(model.policy.module.parameters()).dtype)
    floor = Floor(arch, model.precision, device.gflops, device.gbytes)
    name = torch.cuda.get_device_name(kind) if kind.type == "cuda" else "processor"
    learner = Learner(posttrain.method("grpo", kl_coef=0.0), {"policy": model.policy}, partial(FlatAdamW))
    print(f"{name}, {model.precision}: {device.gflops:.0f} GFLOP/s, {device.gbytes:.0f} GB/s")
    print("| rows | sampling, tokens/s | share of its floor | update, s | share of its floor |\n|---|---|---|---|---|")
    for rows in args.batch:
        samples = min(rows, 8)
        if rows % samples:
            raise UserError(f"batch = {rows}: must be at most 8, or a multiple of it")
        ids = prompts(rows // samples, args.prompt_tokens, arch.vocabulary)
        sampled = statistics.median(sampling(model, ids, samples, args.new_tokens, kind, args.turns))
        learnt = statistics.median(updates(learner, ids, samples, args.new_tokens, arch.vocabulary, kind, args.turns))
        least = reading(floor, arch, ids, samples, args.new_tokens) / (device.gbytes * 1e9)
        whole = floor.update(ids, [args.new_tokens] * rows)
        print(f"| {rows} | {rows * args.new_tokens / sampled:.0f} | {least / sampled:.0%} | {learnt:.3f} | "
              f"{whole / learnt:.0%} |", flush=True)


def prompts(count: int, tokens: int, vocabulary: int) -> list[list[int]]:
    """Random ids, the first of which all prompts share."""
    ids = torch.randint(vocabulary, (count, tokens), generator=torch.Generator().manual_seed(0))
    ids[:, : int(SHARED * tokens)] = ids[0, : int(SHARED * tokens)].clone()
    return [list(map(int, row)) for row in ids]


def reading(floor: Floor, arch: Architecture, ids: Sequence[Sequence[int]], samples: int, tokens: int) -> int:
    """Bytes that all steps read: weights, the prompts' keys and values once, and those of each row so far."""
    width = 2 if floor.precision == "bf16" else 4
    key = 2 * arch.layers * arch.kv_heads * arch.head_width  # of one token, and its value
    shared = int(SHARED * len(ids[0]))
    above = shared + sum(len(row) - shared for row in ids)
    own = len(ids) * samples * (tokens + 1) // 2  # on average
    return tokens * width * (floor.weights + key * (above + own))


def sampling(model: LanguageModel, ids: Sequence[Sequence[int]], samples: int, tokens: int, kind: torch.device,
             turns: int) -> list[float]:
    """Seconds of each turn; no row ends early."""
    how, generator = Sampling(max_new_tokens=tokens), torch.Generator().manual_seed(0)
    return seconds(lambda: model.engine.generate(ids, samples, how, generator), kind, turns)


def updates(learner: Learner, ids: Sequence[Sequence[int]], samples: int, tokens: int, vocabulary: int,
            kind: torch.device, turns: int) -> list[float]:
    """Seconds of each GRPO update on random completions; no group is without signal."""
    rows = len(ids) * samples
    answers = torch.randint(vocabulary, (rows, tokens), generator=torch.Generator().manual_seed(1))
    drawn = Drawn([list(row) for row in ids], answers.tolist(), [float(i) for i in range(rows)])
    learnt = as_batch(drawn, samples)
    return seconds(lambda: learner.update(learnt, Pace(1e-6, 1.0), torch.Generator()), kind, turns)


if __name__ == "__main__":
    sys.exit(main())
