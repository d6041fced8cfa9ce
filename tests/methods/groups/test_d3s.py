"""D3S: which completions and which tokens are kept."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.methods.groups.d3s import D3S, widest
from posttrain.methods.groups.grpo import GRPO


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7])
def test_no_subset_is_wider(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    for _ in range(5):
        reward = torch.randn(7, generator=generator, dtype=torch.float64)
        weight = widest(reward, torch.zeros(7, dtype=torch.long), size / 7)
        best = max(float(torch.stack(subset).var(correction=0)) for subset in itertools.combinations(reward, size))
        assert float(weight.sum()) == size
        assert float(reward[weight == 1].var(correction=0)) == pytest.approx(best, rel=1e-12)


def test_ties_share_the_places() -> None:
    # Group 0, rewards 0, 1, 0, 0: of four, two are kept, the 1 and one of three zeros.
    # Group 1, all equal: two of three.  Group 2: one completion.
    reward = torch.tensor([0, 1, 0, 0, 5, 5, 5, 2], dtype=torch.float64)
    found = widest(reward, torch.tensor([0, 0, 0, 0, 1, 1, 1, 2]), 0.5)
    assert_close(found, torch.tensor([1 / 3, 1, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 1], dtype=torch.float64))


def test_the_tokens_of_largest_advantage_and_entropy() -> None:
    # Rewards 0, 1: Â = ∓a with one |Â|, so entropy alone decides: 1, 4, 3 in row 0 and 2, 5 in row 1.  Of five tokens
    # ⌈0.5 · 5⌉ = 3 are kept: 5, 4 and 3.  Row 0's weight of 1 is spread over two of them.
    logp = torch.tensor([[-1.0, -4.0, -3.0], [-2.0, -5.0, -9.0]], dtype=torch.float64)  # a table's entropy is −log π
    batch = table_groups([0, 1], [[1, 1, 1], [1, 1, 0]])
    learner = Learner(D3S(), TablePolicy(logp))
    a = float(learner.update(batch).credit[1, 0])
    expected = torch.tensor([0, a / 4, a / 4, 0, -a / 2, 0], dtype=torch.float64)
    assert_close(learner.gradient, expected, rtol=1e-10, atol=1e-12)


def test_keeping_all_is_grpo() -> None:
    generator = torch.Generator().manual_seed(0)
    logp, old = 0.3 * torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    mask = torch.arange(4) < torch.tensor([4, 1, 2, 3, 4, 2])[:, None]
    batch = table_groups([1, 0, 0.5, 1, 0, 0], mask, group=[0, 0, 0, 1, 1, 1], logp_old=old)
    gradients = []
    for method in (D3S(rows_kept=1, tokens_kept=1), GRPO(kl_coef=0)):
        learner = Learner(method, TablePolicy(logp))
        learner.update(batch)
        gradients.append(learner.gradient)
    assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)


def test_the_schedule_relaxes() -> None:
    # Six different rewards.  κ = 1/3 at first: 2 rows; half way 1/3 + 2/3 · 1/2 = 2/3: 4 rows; then all.
    batch = table_groups([0, 1, 2, 3, 4, 5], [[1]] * 6)
    learner = Learner(D3S(rows_kept=1 / 3, tokens_kept=1, relax_batches=2), TablePolicy(torch.zeros(6, 1).double()))
    kept = [learner.update(batch, step, lr=0.0).extra["kept"].sum().item() for step in range(4)]
    assert kept == [2, 4, 6, 6]
