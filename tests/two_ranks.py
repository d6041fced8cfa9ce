"""Every method's update by two processes that share it, over gloo; run as `python tests/two_ranks.py OUT NAME ...`."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import multiprocessing
from toy import language_learner, toy_groups

from posttrain.core import catalog
from posttrain.train.ranks import Together

BUDGET = 40  # tokens of a micro-batch, so that each rank has several


def work(rank: int, size: int, out: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(out / "store"), size)  # type: ignore[attr-defined]
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size,
                                         timeout=timedelta(seconds=120))
    found = {}
    for name in names:
        learner = language_learner(catalog.make(name, epochs=1, minibatches=1), BUDGET)
        learner.update(toy_groups(), ranks=Together())
        found[name] = learner.gradient, learner.weights, learner.metrics
    torch.save(found, out / f"rank-{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    multiprocessing.spawn(work, (2, Path(sys.argv[1]), sys.argv[2:]), nprocs=2)  # type: ignore[no-untyped-call]
