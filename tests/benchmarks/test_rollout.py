"""The rollout's sizes, its table, and a side of it in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rollout
from tiny_folder import write_tiny_folder
from versus.floor import Floor
from versus.rollout_sides import Work
from versus.side import Side

from posttrain.core.errors import PosttrainError, UserError
from posttrain.nets.architecture import Architecture

ARCH = Architecture(width=4, layers=2, heads=2, kv_heads=1, head_width=2, hidden=3, vocabulary=10, norm_epsilon=1e-5,
                    rope_theta=1e4, context=64, tied=True, qkv_bias=False, qk_norm=False)
WORK = Work("posttrain", "folder", ((1, 2), (1, 3)), 4, 30, "fp32", 1)


def turns(*seconds: float, load: float = 0.0) -> list[dict[str, Any]]:
    return [{"seconds": s, "tokens": 240, "peak_bytes": 2**30, "others": load, "version": "1.0"} for s in seconds]


def test_table() -> None:
    # Each of the 208 weights of 4 bytes is read 30 times; for 29 tokens that are fed, the one token that both prompts
    # share and the one more of each, 87; and of 8 completions 1 + 2 + … + 29 = 435 of their own, 3480.  3567 tokens of
    # 2 · 2 · 1 · 2 = 8 numbers.  All that at so many bytes a second that it takes half a second.
    floor = Floor(ARCH, "fp32", 1e9, 2 * (30 * 208 + 3567 * 8) * 4 / 1e9)
    told = {"posttrain": turns(2.0, 1.0, 9.0), "transformers": turns(3.0), "vllm": turns(1.0)}
    lines = rollout.table([{"batch": 8, "new_tokens": 30, "sides": rollout.collect(told, WORK, floor, False)}])
    # medians 2, 3 and 1 s for 240 tokens: 120, 80 and 240 a second; 3 / 2 and 1 / 2 as long as posttrain
    assert lines[2] == ("| 8 | 30 | 120 (25%) | 80 (17%) | 240 (50%) | 1.00 | 1.00 | 1.00 "
                        "| 1.50× transformers, 0.50× vllm |")
    assert lines[1].count("|") == lines[0].count("|") == lines[2].count("|")


def test_disturbed_turns_do_not_count() -> None:
    floor, told = Floor(ARCH, "fp32", 1e9, 1.0), {"posttrain": [*turns(8.0, 9.0, load=0.5), *turns(2.0)]}
    assert rollout.collect(told, WORK, floor, False)["posttrain"]["seconds"] == 2.0
    assert rollout.collect(told, WORK, floor, True)["posttrain"]["seconds"] == 8.0
    with pytest.raises(PosttrainError, match="posttrain: others used more than 10% of a core in every turn"):
        rollout.collect({"posttrain": turns(1.0, load=0.5)}, WORK, floor, False)


def test_sizes() -> None:
    assert rollout.sizes([1, 8, 64], [24, 128]) == [(1, 24), (8, 24), (64, 24), (64, 128)]
    assert [rollout.group(batch) for batch in (1, 8, 64)] == [1, 8, 8]
    with pytest.raises(UserError, match="batch = 12: must be at most 8, or a multiple of it"):
        rollout.group(12)


@pytest.mark.parametrize("name", ["posttrain", "transformers"])
def test_a_side_samples_what_it_is_told(name: str, tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "tiny")
    work = Work(name, str(folder), ((5, 6, 7), (5, 6)), 2, 4, "fp32", 1, warm_tokens=2)
    with Side(name, "versus.rollout_sides", work.dump(), 1) as side:
        assert side.receive(60.0)["version"]
        told = side.step(60.0)
    assert told["tokens"] == 2 * 2 * 4
    assert told["seconds"] > 0
