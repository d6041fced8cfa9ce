"""The slope and the verdict on what was noted, and one run of few steps."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import leak
import pytest

MIB = leak.MIB


def notes(*held: float, files: int = 7) -> list[leak.Note]:
    return [leak.Note(50 * (i + 1), 900 * MIB, int(mib * MIB), files, 2) for i, mib in enumerate(held)]


def test_slope_by_hand() -> None:
    # x = 0 … 3 about 1.5: spread 5.  y = 0, 1, 3, 4 about 2: slope (1.5·2 + 0.5·1 + 0.5·1 + 1.5·2) / 5 = 1.4.
    # Residuals 0.1, −0.3, 0.3, −0.1: squares 0.2, over 2 degrees and the spread 0.02.  t(2) = 4.3027.
    found = leak.slope([0, 1, 2, 3], [0, 1, 3, 4])
    assert found.value == pytest.approx(1.4)
    assert found.high - found.value == pytest.approx(found.value - found.low)
    assert found.high - found.value == pytest.approx(4.3027 * math.sqrt(0.02), rel=1e-4)


def test_the_first_fifth_does_not_count() -> None:
    assert leak.settled(list(range(10))) == list(range(2, 10))  # type: ignore[arg-type]
    flat = leak.verdict(notes(10, 300, *[500, 501, 500, 501, 501, 500, 501, 500]))
    assert flat.startswith("Held memory does not grow: +0.00 MiB in 1,000 steps")
    assert flat.endswith("over the last 80%; open files +0, threads +0.")


def test_growth_is_told() -> None:
    # 1 MiB every 50 steps, to within a tenth: 20 MiB in 1,000
    grown = notes(*(100 + i + (0.1 if i % 2 else 0) for i in range(10)))
    assert leak.verdict(grown).startswith("Held memory grows: +20")
    more = [*grown[:-1], grown[-1]._replace(files=9)]
    assert "open files +2" in leak.verdict(more)


def test_the_table_ends_with_the_last_note() -> None:
    lines = leak.table(notes(*range(100, 125)))
    assert lines[-1] == "| 1,250 | 900.0 | 124.00 | 7 | 2 |"
    assert len(lines) == 2 + 13


def test_too_few_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert leak.main(["--steps", "100"]) == 1
    assert capsys.readouterr().err == "leak: steps = 100: must be ≥ 8 × every = 400\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no count of descriptors")
def test_notes_are_of_this_process(tmp_path: Path) -> None:
    pytest.importorskip("psutil")
    taken = leak.Notes(2)
    for step in range(1, 4):
        taken.step(step, {}, {})
    with (tmp_path / "open").open("w"):
        taken.step(4, {}, {})
    assert [note.step for note in taken.kept] == [2, 4]
    assert taken.kept[1].files == taken.kept[0].files + 1
    assert taken.kept[1].resident > MIB
    assert taken.kept[1].held > MIB


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc gives free pages back when asked")
def test_free_pages_are_not_held_and_what_is_kept_is() -> None:
    psutil = pytest.importorskip("psutil")
    process, pages = psutil.Process(), 40_000

    def resident() -> int:
        leak.give_back()
        return int(process.memory_info().rss)

    before = resident()
    kept = [bytes(1000) for _ in range(pages)]  # of malloc, as 512 bytes is the most that Python's own arenas serve
    several = resident()
    assert several - before > 0.8 * pages * 1000
    last = kept[-1]  # the top of the heap stays in use, so that only a trim of its middle can give the rest back
    del kept
    assert resident() - before < 0.3 * pages * 1000, last[:1]
