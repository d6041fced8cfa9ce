"""What a run learns from: by the method, the option and the task; what cannot be is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.core.errors import UserError
from posttrain.tasks import load_task
from posttrain.tasks.task import Task
from posttrain.train.config import LanguageConfig
from posttrain.train.material import check_used, source_kind


def task_of(folder: Path, verifier: str | None = None, **keys: Any) -> Task:
    (folder / "my.jsonl").write_text("".join(json.dumps({"prompt": p} | keys) + "\n" for p in "abc"))
    return load_task(str(folder / "my.jsonl"), verifier)


PAIR: dict[str, Any] = {"chosen": "1", "rejected": "2"}


@pytest.mark.parametrize(("learns_from", "source", "keys", "verifier", "expected"), [
    ("samples", "auto", {"answer": "1"}, "exact", "samples"),
    ("samples", "auto", {"answer": "1", **PAIR}, "exact", "samples"),
    ("preferences", "auto", {"answer": "1"}, "exact", "samples"),
    ("preferences", "auto", PAIR, None, "given"),
    ("preferences", "auto", {"answer": "1", **PAIR}, "exact", "given"),
    ("preferences", "samples", {"answer": "1", **PAIR}, "exact", "samples"),
    ("preferences", "both", {"answer": "1", **PAIR}, "exact", "both"),
    ("demonstrations", "auto", PAIR, None, "given"),
    ("demonstrations", "auto", {"answer": "1"}, "exact", "given"),
    ("both", "auto", {"answer": "1"}, "exact", "both"),
])
def test_what_a_step_holds(tmp_path: Path, learns_from: str, source: Any, keys: dict[str, Any], verifier: str | None,
                           expected: str) -> None:
    assert source_kind(learns_from, "m", LanguageConfig(source=source), task_of(tmp_path, verifier, **keys)) == expected


@pytest.mark.parametrize(("learns_from", "options", "keys", "verifier", "line"), [
    ("samples", {}, PAIR, None, "m learns from fresh samples, and nothing scores samples; give --verifier"),
    ("samples", {"source": "given"}, PAIR, None,
     "source = 'given': m learns from fresh samples; allowed: auto, samples"),
    ("both", {"source": "samples"}, {"answer": "1"}, "exact",
     "source = 'samples': m learns from given answers beside fresh samples; allowed: auto, both"),
    ("both", {}, PAIR, None, "m learns from given answers beside fresh samples, and nothing scores samples"),
    ("preferences", {"source": "given"}, {"answer": "1"}, "exact", "the task brings no answers to learn from"),
    ("preferences", {"source": "both"}, PAIR, None, "nothing scores samples; give --verifier"),
    ("demonstrations", {"dynamic_sampling": 2}, {"answer": "1"}, "exact",
     "dynamic_sampling = 2: replaces groups of samples alone, and m learns from given answers here"),
])
def test_what_cannot_be(tmp_path: Path, learns_from: str, options: dict[str, Any], keys: dict[str, Any],
                        verifier: str | None, line: str) -> None:
    with pytest.raises(UserError) as caught:
        source_kind(learns_from, "m", LanguageConfig(**options), task_of(tmp_path, verifier, **keys))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_that_nothing_reads_is_refused() -> None:
    check_used("samples", {"samples": 4, "top_p": 0.9})
    check_used("given", {"prompts": 4, "temperature": 0.7})
    with pytest.raises(UserError, match=r"top_p = 0.9: nothing is sampled, the run learns from given answers"):
        check_used("given", {"top_p": 0.9})
