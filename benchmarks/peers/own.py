"""posttrain against itself: the same gradient from micro-batches and from a wider batch."""

from __future__ import annotations

from collections.abc import Iterator

from . import ours
from .compare import Comparison, Row
from .draw import Draw
from .trl_preference import paired

PEER = "posttrain"
PIECES = 3
NAMES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "gspo", "gmpo", "rloo", "gpg", "opo", "clip_cov", "kl_cov",
         "reinforce_pp")
PAIRED = ("dpo", "cdpo", "ipo", "kto", "simpo", "orpo", "sft")


def invariance(d: Draw) -> Iterator[Row]:
    for name, d in [(name, d) for name in NAMES] + [(name, paired(d)) for name in PAIRED]:
        whole = ours.run(name, d).gradient
        yield Row(name, PEER, name, "split", whole, ours.run(name, d, PIECES).gradient)
        yield Row(name, PEER, name, "padding", whole, ours.off_padding(ours.run(name, d.wider(7)).gradient, d))


COMPARISONS: tuple[Comparison, ...] = (invariance,)
