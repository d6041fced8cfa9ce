"""A critic on a transformer: what it says, before which token, and what its gradient reaches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toy import TOOL, relative_error, sequences, toy_groups, toy_model, widened
from worked import close

from posttrain.core import Groups
from posttrain.policies.causal_lm import CausalLM
from posttrain.policies.value_lm import ValueLM


def critic(budget: int = 2048, head: bool = True) -> ValueLM:
    made = ValueLM(toy_model(seed=4), CausalLM(toy_model(), None, budget).split)
    if head:
        with torch.no_grad():
            made.head.copy_(torch.randn(len(made.head), generator=torch.Generator().manual_seed(4)))
    return made


def values(batch: Groups) -> Tensor:
    return critic().values(batch).detach()


def test_says_nothing_at_the_start_and_can_learn_from_there() -> None:
    made, batch = critic(head=False), toy_groups()
    value = made.values(batch)
    assert value.shape == batch.mask.shape
    assert (value == 0).all()
    value.sum().backward()
    assert made.head.grad is not None
    assert made.head.grad.norm() > 0


def test_gradient_reaches_every_part_of_the_body_but_the_output_matrix() -> None:
    """Tied, that matrix is the embedding; untied it has no part in a value."""
    for tied in (True, False):
        made = ValueLM(toy_model(seed=4, tied=tied), CausalLM(toy_model(), None).split)
        with torch.no_grad():
            made.head.fill_(0.1)
        made.values(toy_groups()).square().sum().backward()
        silent = [p for p in made.module.parameters() if p.grad is None or p.grad.norm() == 0]
        assert [p is made.net.head for p in silent] == ([] if tied else [True])


def test_values_stand_before_each_decision() -> None:
    # Row 4 has seven tokens; another token at t changes V after t alone, and no other row.
    batch = toy_groups()
    before = values(batch)
    assert (before[~batch.mask] == 0).all()
    assert (before[batch.mask] != 0).all()
    for t in (0, 3, 5, 6):
        tokens = sequences(batch).tokens.clone()
        tokens[4, t] = (tokens[4, t] + 13) % 97
        after = values(batch.replace(payload=replace(sequences(batch), tokens=tokens)))
        close(after[4, : t + 1], before[4, : t + 1])
        assert (after[4, t + 1 :] != before[4, t + 1 :]).all()
        close(after[torch.arange(10) != 4], before[torch.arange(10) != 4])


def test_a_tool_s_answer_is_read_but_not_valued() -> None:
    batch = toy_groups()
    before, tokens = values(batch), sequences(batch).tokens.clone()
    tokens[TOOL] = (tokens[TOOL] + 13) % 97
    after = values(batch.replace(payload=replace(sequences(batch), tokens=tokens)))
    assert (before[TOOL] == 0).all()
    close(after[2, :2], before[2, :2])
    assert (after[2, 4:6] != before[2, 4:6]).all()


def test_reads_the_state_that_predicts_the_decision() -> None:
    """With the critic's head and zeros as two rows of the output matrix, V is the difference of their logits."""
    net, batch = toy_model(seed=4, tied=False), toy_groups()
    policy = CausalLM(net, None)
    made = ValueLM(net, policy.split)
    with torch.no_grad():
        made.head.copy_(torch.randn(len(made.head), generator=torch.Generator().manual_seed(4)))
        net.head[5], net.head[6] = made.head, 0
        logp = policy.predict(batch)(slice(None))
        close(made.values(batch)[batch.mask], logp[:, 5] - logp[:, 6])


@pytest.mark.parametrize("budget", [1, 15, 40])
def test_packing_and_padding_are_indifferent(budget: int) -> None:
    batch = toy_groups()
    whole = values(batch)
    with torch.no_grad():
        close(critic(budget).values(batch), whole)  # piece by piece
    close(torch.cat([values(batch.take(torch.tensor([row]))) for row in range(10)]), whole)
    close(values(batch.take(torch.arange(9, -1, -1))), whole.flip(0))
    wide = values(widened(batch, 5))
    close(wide[:, :-5], whole)
    assert (wide[:, -5:] == 0).all()


def test_gradient_does_not_depend_on_the_split_either() -> None:
    def gradient(budget: int) -> Tensor:
        made, batch = critic(budget), toy_groups()
        for rows in made.split(batch, False):
            made.values(batch.take(rows)).square().sum().backward()
        return torch.cat([p.grad.reshape(-1) for p in made.module.parameters() if p.grad is not None])

    assert relative_error(gradient(15), gradient(2048)) < 1e-12


def test_gradient_only_where_it_is_asked_for() -> None:
    batch = toy_groups()
    assert critic().values(batch).requires_grad
    with torch.no_grad():
        assert not critic().values(batch).requires_grad
