"""The sizes and tables of scaling and of long completions, and their plot; nothing is timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import long
import pytest
import scaling
from test_rollout import ARCH
from tiny_folder import write_tiny_folder

from posttrain.policies.load import load_language_model

FIRST = {"prompts": 4, "samples": 4, "prompt_tokens": 64, "new_tokens": 32}


def found(peers: bool = True, **changed: int) -> dict[str, Any]:
    """One size, as it is measured."""
    def side(rate: float, gib: float) -> dict[str, float]:
        return {"rate": rate, "share": 0.25, "peak_gib": gib}

    theirs = {"rollout": {"transformers": side(50, 2)}, "update": {"TRL": side(20, 8)}} if peers else {}
    return {"size": FIRST | changed, **{half: {"posttrain": side(rate, 1), **theirs.get(half, {})}
                                        for half, rate in (("rollout", 200), ("update", 100))}}


def test_what_a_peer_would_compute() -> None:
    assert scaling.tokens_of(FIRST) == 4 * 4 * (64 + 32)


def test_a_table_for_every_option_with_several_values() -> None:
    lines = scaling.tables([found(), found(prompts=16), found(prompts=8), found(peers=False, samples=32)])
    assert [line for line in lines if line.endswith(":")] == [
        "4 samples, 64 prompt tokens, 32 new tokens:", "4 prompts, 64 prompt tokens, 32 new tokens:"]
    rows = [line for line in lines if line[2:3].isdigit()]
    assert [row.split(" | ")[0] for row in rows] == ["| 4", "| 8", "| 16", "| 4", "| 32"]  # in order of size
    assert rows[0] == "| 4 | 200 (25%) | 50 | 1.00 | 2.00 | 100 (25%) | 20 | 1.00 | 8.00 |"
    assert rows[-1] == "| 32 | 200 (25%) |  | 1.00 |  | 100 (25%) |  | 1.00 |  |"


def test_the_plot_is_drawn_where_peers_are_missing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "pictures/plot.png"
    scaling.draw([found(), found(prompts=8), found(peers=False, samples=32)], file)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_long_sizes() -> None:
    assert long.sizes([4, 16, 64], [256, 2048]) == [(4, 256), (4, 2048), (16, 256), (64, 256)]


def test_keys_and_values_of_a_token() -> None:
    # 2 of 2 layers, 1 head of 2 numbers each: 8 numbers
    assert long.cached_bytes(ARCH, "bf16") == 16
    assert long.cached_bytes(ARCH, "fp32") == 32


def test_a_row_of_long() -> None:
    one = found(peers=False, samples=64, new_tokens=2048)
    assert long.row({"model": "small", "cache_gib": 0.75, **one}) == [
        "small", "64", "2,048", "200 (25%)", "1.00", "0.75", "100 (25%)", "1.00"]
    assert len(long.HEADS) == 8


def test_the_small_model_has_the_block_and_the_tokenizer(tmp_path: Path) -> None:
    whole = write_tiny_folder(tmp_path / "whole")
    small = load_language_model(long.write_small(whole, tmp_path / "small"), max_new_tokens=4, precision="fp32")
    assert small.notes == ()  # the fast path
    assert small.policy.context == 128
    assert small.prompter.tokenizer.eos_token == "<eos>"
    shapes = {tuple(weight.shape) for weight in small.policy.module.parameters()}
    assert (257, 192) in shapes
