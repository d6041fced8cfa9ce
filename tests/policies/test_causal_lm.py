"""How a causal language model cuts a batch into micro-batches, and what it scores."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from toy import toy_groups, toy_model

from posttrain.core import Groups
from posttrain.policies.causal_lm import CausalLM

# toy_groups: prompts of 6, 4 and 8 tokens, of which all share three; completions of 4 1 6 3 | 7 2 5 | 4 1 3.
COSTS, SHARED = [6, 4, 8], 3
LENGTHS = [4, 1, 6, 3, 7, 2, 5, 4, 1, 3]


def parts(budget: int, whole_units: bool, batch: Groups | None = None) -> list[list[int]]:
    policy = CausalLM(toy_model(), None, budget)
    return [rows.tolist() for rows in policy.split(toy_groups() if batch is None else batch, whole_units)]


def test_split_by_hand() -> None:
    # Units cost 6 + 14 = 20, 4 + 14 = 18 and 8 + 8 = 16; together, what the prompts share counts once: 20 + 15 + 13.
    assert parts(48, False) == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert parts(47, False) == [[0, 1, 2, 3, 4, 5, 6], [7, 8, 9]]
    assert parts(35, False) == [[0, 1, 2, 3, 4, 5, 6], [7, 8, 9]]
    assert parts(34, False) == [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9]]  # 18 + 13
    assert parts(20, False) == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    # 15: 6 + 4 + 1 = 11, then 6 + 6 + 3 = 15; 4 + 7 + 2 = 13, then 4 + 5; 8 + 4 + 1 = 13, then 8 + 3.
    assert parts(15, False) == [[0, 1], [2, 3], [4, 5], [6], [7, 8], [9]]
    assert parts(15, True) == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert parts(1, False) == [[i] for i in range(10)]


def test_rows_of_a_unit_go_together_wherever_they_stand() -> None:
    order = torch.tensor([9, 0, 5, 1, 7, 2, 4, 8, 3, 6])
    found = parts(20, True, toy_groups().take(order))
    assert [sorted(order[rows].tolist()) for rows in map(torch.tensor, found)] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]


@given(st.integers(1, 70), st.booleans(), st.permutations(range(10)))
def test_every_row_once_and_no_more_tokens_than_the_budget(budget: int, whole: bool, order: list[int]) -> None:
    batch = toy_groups().take(torch.tensor(order))
    found = parts(budget, whole, batch)
    assert sorted(row for rows in found for row in rows) == list(range(10))
    for rows in found:
        units = batch.unit[rows].unique().tolist()
        cost = sum(COSTS[u] for u in units) - (len(units) - 1) * SHARED + sum(LENGTHS[order[row]] for row in rows)
        assert cost <= budget or (len(units) == 1 if whole else len(rows) == 1)
        if whole:
            assert all(int((batch.unit[rows] == u).sum()) == int((batch.unit == u).sum()) for u in units)


def test_an_empty_batch_has_no_micro_batch() -> None:
    assert parts(100, False, toy_groups().take(torch.tensor([], dtype=torch.long))) == []


def test_scoring_without_gradient_goes_piece_by_piece_and_gives_the_same() -> None:
    batch = toy_groups()
    whole = CausalLM(toy_model(), None).score(batch, entropy=True)
    with torch.no_grad():
        pieces = CausalLM(toy_model(), None, 15).score(batch, entropy=True)
    assert pieces.entropy is not None
    assert whole.entropy is not None
    assert_close(pieces.log_prob, whole.log_prob.detach(), rtol=1e-12, atol=1e-12)
    assert_close(pieces.entropy, whole.entropy.detach(), rtol=1e-12, atol=1e-12)
    assert not pieces.log_prob.requires_grad
    assert whole.log_prob.requires_grad
