"""The correction for a sampler that is not the policy: by hand, on a table of log-probabilities, and in a whole run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_folder import write_tiny_folder
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.core import Groups
from posttrain.methods.groups.grpo import GRPO
from posttrain.train.config import LanguageConfig
from posttrain.train.correction import Corrected
from posttrain.train.run import train

LOGP = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], dtype=torch.float64)
RATIO = torch.tensor([[0.25, 1.5], [4.0, 1.0]], dtype=torch.float64)  # π_old / μ of each decision


def batch(mask: list[list[int]] | None = None) -> Groups:
    """Advantages ±1 before scaling by their deviation; the sampler recorded log π − log r."""
    made = table_groups([1.0, 0.0], mask or [[1, 1], [1, 1]])
    return made.replace(logp_behaviour=LOGP - RATIO.log())


def gradient(rows: Groups, kind: str = "", epochs: int = 1) -> tuple[Tensor, Learner]:
    policy = TablePolicy(LOGP)
    made = Learner(GRPO(kl_coef=0.0, epochs=epochs), Corrected(policy, kind, 2.0) if kind else policy)
    made.update(rows)
    return made.gradient.view(2, 2), made


@pytest.mark.parametrize(("kind", "weight"), [
    ("truncate", [[0.25, 1.5], [2.0, 1.0]]),  # min(r, 2)
    ("mask", [[0.0, 1.5], [0.0, 1.0]]),  # 0.25 < 1/2 and 4 > 2 are left out
])
def test_every_decision_has_its_weight(kind: str, weight: list[list[float]]) -> None:
    plain, before = gradient(batch())
    found, after = gradient(batch(), kind)
    assert bool((plain != 0).all())
    assert_close(found, plain * torch.tensor(weight, dtype=torch.float64))
    assert {k: v for k, v in after.metrics.items() if k != "grad_norm"} == {
        k: v for k, v in before.metrics.items() if k != "grad_norm"}  # values stay as they are
    policy = after.models.policy.policy
    assert policy.metrics() == pytest.approx({"weight": sum(map(sum, weight)) / 4,
                                              "weight_cut": 0.5 if kind == "mask" else 0.25})
    assert policy.metrics() == {}


def test_no_weight_where_nothing_was_sampled() -> None:
    """A given row has NaN in the sampler's place; a masked decision counts nowhere."""
    rows = batch([[1, 1], [1, 0]])
    given = rows.replace(logp_behaviour=rows.logp_behaviour.index_fill(0, torch.tensor([0]), math.nan))
    plain, _ = gradient(given)
    found, after = gradient(given, "truncate")
    assert_close(found, plain * torch.tensor([[1.0, 1.0], [2.0, 1.0]], dtype=torch.float64))
    assert after.models.policy.policy.metrics() == {"weight": 2.0, "weight_cut": 1.0}


def test_a_truncated_sampler_s_probability_is_what_it_drew_from() -> None:
    """The first row's tokens came out of sets with 0.5 and 0.8 of p: q = p / m, so r = m π_old / p; the limit is 2."""
    mass = torch.tensor([[0.5, 0.8], [1.0, 1.0]], dtype=torch.float64)
    plain, _ = gradient(batch())
    found, _ = gradient(batch().with_extra(log_kept=mass.log()), "truncate")
    # 0.25 · 0.5, 1.5 · 0.8; the second row was drawn from all of p: min(4, 2), 1
    assert_close(found, plain * torch.tensor([[0.125, 1.2], [2.0, 1.0]], dtype=torch.float64))


def test_the_ratio_is_of_the_policy_that_sampled() -> None:
    """In a second epoch the policy has moved, and the weights have not: r is that of logp_old."""
    rows = batch().replace(logp_old=LOGP - 0.5)
    policy = TablePolicy(LOGP)
    corrected = Corrected(policy, "truncate", 2.0)
    corrected.score(rows).log_prob.sum().backward()  # type: ignore[no-untyped-call]
    expected = (RATIO * math.exp(-0.5)).clamp(max=2.0)  # 4 e^-0.5 = 2.43 is still above 2
    assert policy.table.grad is not None
    assert_close(policy.table.grad, expected)


def test_a_run_with_it_on_its_own_samples_changes_next_to_nothing(tmp_path: Path) -> None:
    """In fp32 the embedded engine's log-probabilities are the training pass's but for rounding: weights of 1."""
    (tmp_path / "mine.jsonl").write_text("".join(f'{{"prompt": "say {c}", "answer": "{c}"}}\n' for c in "abcdefgh"))
    (tmp_path / "check.py").write_text("def check(completion, answer):\n    return len(completion) % 2\n")
    config = LanguageConfig(policy=str(write_tiny_folder(tmp_path / "policy")), task=str(tmp_path / "mine.jsonl"),
                            verifier=f"{tmp_path / 'check.py'}:check", steps=2, prompts=2, samples=4, eval_problems=4,
                            max_new_tokens=6, threads=1, precision="fp32", lr=1e-3, out=str(tmp_path / "plain"))
    method = GRPO(kl_coef=0.0)
    plain = metrics(train(method, config).folder)
    found = metrics(train(method, replace(config, correct="mask", out=str(tmp_path / "mask"))).folder)
    assert "weight" not in plain[0]
    for row, other in zip(found, plain, strict=True):
        assert row.pop("weight") == pytest.approx(1.0, abs=1e-4)
        assert row.pop("weight_cut") == 0
        assert row == pytest.approx(other, abs=1e-4)


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
