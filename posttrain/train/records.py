"""What a run keeps of its rollouts, for people and viewers."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from posttrain.core import Groups
from posttrain.policies.causal_lm import Sequences
from posttrain.rollout.groups import Rollout


def write_rollout(folder: Path, step: int, rollout: Rollout, batch: Groups) -> None:
    """rollouts/step-N.parquet: one row a completion, per-token columns as lists."""
    sequences = batch.payload
    assert isinstance(sequences, Sequences)
    lengths, spans = sequences.lengths.tolist(), sequences.spans  # tokens, decisions

    def ragged(columns: list[list[float]], ends: list[int] = spans) -> list[list[float]]:
        return [row[:end] for row, end in zip(columns, ends, strict=True)]

    advantage = batch.credit.tolist() if batch.advantage is not None else [[] for _ in lengths]
    table = pa.table({
        "group": batch.unit.tolist(), "prompt": [clean(text) for text in rollout.prompts],
        "completion": [clean(text) for text in rollout.completions], "reward": batch.reward.tolist(),
        "finished": batch.finished.tolist(), "advantage": ragged(advantage),
        "token": ragged(sequences.tokens.tolist(), lengths), "log_prob": ragged(batch.logp_behaviour.tolist()),
        "version": ragged(batch.version.tolist()), "given": batch.extra["given"].tolist(),
    })
    temporary = folder / f".step-{step:06d}.tmp"
    pq.write_table(table, temporary, compression="zstd")
    os.replace(temporary, folder / f"step-{step:06d}.parquet")


def clean(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates become the replacement character."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
