"""The learning table: which runs count, what is written; and, slow, that ten methods learn."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import learning
import pytest
import seeds

SUMMARY = {"before": {"accuracy": 0.375}, "after": {"accuracy": 0.9, "kl_task": 0.5}, "problems": 8,
           "training_seconds": 10.0}


def stored(out: Path, name: str, **changes: Any) -> Path:
    """A finished run of this method in the folder `out`, as far as the table reads one."""
    asked = {**learning.options(name, 0), **changes}
    out.mkdir(parents=True)
    name = asked.pop("method")
    own = {key: asked.pop(key) for key in ("kl_coef", "minibatches") if key in asked}
    (out / "config.json").write_text(json.dumps({"method": name, "config": asked, "hyperparameters": own}))
    (out / "summary.json").write_text(json.dumps(SUMMARY))
    return out


def test_mean_interval_by_hand() -> None:
    # 1, 2, 3: mean 2, sample deviation 1, half width t(2 degrees) / √3 = 4.302652730 / 1.732.
    assert seeds.mean_interval([1, 2, 3]) == (2.0, pytest.approx(4.302652730 / 3**0.5))
    mean, half = seeds.mean_interval([0.5])
    assert mean == 0.5
    assert half != half  # NaN: one seed has no spread


def test_a_run_that_exists_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("was run again"))
    assert learning.run("a", learning.options("grpo", 0), stored(tmp_path / "a", "grpo")) == SUMMARY
    for changes, message in [({"lr": 0.5}, "lr = 0.5, not"), ({"kl_coef": 0.04}, r"kl_coef = 0\.04, not 0\.0")]:
        with pytest.raises(SystemExit, match=f"was run with {message}.*; give another --out"):
            learning.run("a", learning.options("grpo", 0),
                         stored(tmp_path / str(changes["lr" if "lr" in changes else "kl_coef"]), "grpo", **changes))


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"grpoo, seed 3: posttrain train: .*grpo"):
        learning.run("grpoo, seed 3", learning.options("grpoo", 3), tmp_path / "run")


def test_table_and_page() -> None:
    row = learning.collect([SUMMARY, {**SUMMARY, "after": {"accuracy": 0.8, "kl_task": 0.7}}])
    assert row["after"] == [0.9, 0.8]
    lines = learning.table({"methods": {"grpo": row}, "jobs": 2, "machine": "2 cores"})
    # 0.9 and 0.8: mean 0.85, deviation 0.0707, half width 12.71 · 0.0707 / √2 = 0.6355
    assert lines[2] == "| `grpo` | 37.5% | 85.0 ± 63.5% | 80.0% | 2 | 0.60 |"
    page = learning.between("before\n<!-- begin table -->\nold\n<!-- end table -->\nafter\n", lines)
    assert page.startswith("before\n<!-- begin table -->\n| method")
    assert page.endswith("2 cores.\n<!-- end table -->\nafter\n")
    assert "old" not in page
    with pytest.raises(SystemExit, match="has no <!-- begin table -->"):
        learning.between("no marks", lines)


def test_methods_measured_before_stay(tmp_path: Path) -> None:
    evidence = tmp_path / "learning.json"
    old = {"machine": "m", "common": {"lr": 1}, "methods": {"a": 1, "b": 2}}
    evidence.write_text(json.dumps(old))
    assert learning.merged(evidence, {**old, "methods": {"b": 3}})["methods"] == {"a": 1, "b": 3}
    for other in ({"machine": "n"}, {"common": {"lr": 2}}):
        assert learning.merged(evidence, {**old, **other, "methods": {"b": 3}})["methods"] == {"b": 3}
    assert learning.merged(tmp_path / "none", {**old})["methods"] == old["methods"]


def test_the_page_has_the_marks() -> None:
    learning.between((learning.ROOT / "docs/learning.md").read_text(encoding="utf-8"), ["x"])


@pytest.mark.slow
@pytest.mark.parametrize("name", learning.METHODS)
def test_a_method_learns(name: str, tmp_path: Path) -> None:
    """One seed, the table's own settings: well above the start, and no lower than any seed of the table fell."""
    summary = learning.run(name, learning.options(name, 0), tmp_path / "run")
    assert summary["before"]["accuracy"] < 0.5
    assert summary["after"]["accuracy"] > learning.REACHED
