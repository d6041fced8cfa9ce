"""The GPU's benchmark where there is none: one line, and its floor by hand."""

from __future__ import annotations

import gpu
import pytest
import torch
from toy import ARCH
from versus.floor import Floor


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert told.err.startswith("gpu: device = 'cuda': torch ") and "finds no graphics processor" in told.err


def test_bytes_read_by_hand() -> None:
    """Two prompts of 20 tokens, the first ⌊0.65 · 20⌋ = 13 the same; 3 rows to each, of 5 tokens; bf16.

    Keys and values above: 13 + 2 · 7 = 27 tokens; own, on average: 6 rows · (1 + … + 5) / 5 = 18.  A token's take
    2 layers · 2 heads · 8 wide · 2 = 64 numbers, so 5 steps read 5 · 2 · (weights + 64 · 45) bytes.
    """
    floor = Floor(ARCH, "bf16", 1.0, 1.0)
    ids = gpu.prompts(2, 20, ARCH.vocabulary)
    assert ids[0][:13] == ids[1][:13] and [len(row) for row in ids] == [20, 20]
    assert gpu.reading(floor, ARCH, ids, 3, 5) == 10 * (floor.weights + 64 * 45)


def test_a_product_of_known_size_has_a_rate() -> None:
    found = gpu.Device.measure(torch.device("cpu"), torch.float32)
    assert found.gflops > 0 and found.gbytes > 0
    assert len(gpu.seconds(lambda: None, found.kind, 3)) == 3
