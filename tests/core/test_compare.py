"""A divergence between whole distributions, against softmaxes worked out in the open."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from toy import TablePolicy, relative_error, table_groups, toy_groups, toy_model, widened
from worked import close, f64, ln

from posttrain.core import Groups, compare, policy
from posttrain.policies.causal_lm import CausalLM


def kl(logp: Tensor, logq: Tensor) -> Tensor:
    return (logp.exp() * (logp - logq)).sum(1)


def test_two_choices_by_hand() -> None:
    # p = ½ against q = ¼: ½ ln 2 + ½ ln(2/3) = ½ ln(4/3); p = ¾ against ½: ¾ ln(3/2) + ¼ ln ½.  The masked place is 0.
    # With p free, dKL/dlog p = p (ln(p/q) − ln((1−p)/(1−q))) = ½ ln 3 at the first and ¾ ln 3 at the second.
    mine, theirs = TablePolicy(ln([[0.5, 0.9, 0.75]])), TablePolicy(ln([[0.25, 0.1, 0.5]]))
    batch = table_groups([0], [[1, 0, 1]])
    found = compare(mine, theirs, batch, kl)
    close(found.detach(), [[0.5 * math.log(4 / 3), 0, 0.75 * math.log(1.5) - 0.25 * math.log(2)]])
    found.sum().backward()
    assert mine.table.grad is not None
    close(mine.table.grad, f64([[0.5, 0, 0.75]]) * math.log(3))
    assert theirs.table.grad is None  # although it asks for one


def models() -> tuple[CausalLM, CausalLM]:
    return CausalLM(toy_model(0), None), CausalLM(toy_model(1), None)


def everything(lm: CausalLM, batch: Groups) -> Tensor:
    """The full softmax before every decision, [n, V], each row on its own so that nothing is shared."""
    return torch.cat([lm.predict(batch.take(torch.tensor([row])))(slice(None)) for row in range(len(batch))])


def test_is_the_full_softmax_s_divergence_in_its_own_place() -> None:
    batch = toy_groups()
    mine, theirs = models()
    found = compare(mine, theirs, batch, kl)
    with torch.no_grad():
        logp, logq = everything(mine, batch), everything(theirs, batch)
    torch.testing.assert_close(logp.exp().sum(1), torch.ones(len(logp), dtype=torch.float64))
    close(found[batch.mask].detach(), kl(logp, logq))
    assert (found[~batch.mask] == 0).all()
    chosen = logp.gather(1, batch.extra["token"][batch.mask][:, None])[:, 0]
    close(mine.log_prob(batch)[batch.mask].detach(), chosen)  # and those are the decisions that the batch holds


def flat_gradient(lm: CausalLM) -> Tensor:
    found = [p.grad.reshape(-1) for p in lm.module.parameters() if p.grad is not None]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def gradients(batch: Groups) -> tuple[Tensor, Tensor]:
    """Both policies', flat, of a sum in which every decision has a weight of its own."""
    mine, theirs = models()
    weight = torch.arange(1.0, batch.mask.numel() + 1, dtype=torch.float64).view(batch.mask.shape)
    (weight * compare(mine, theirs, batch, kl)).sum().backward()
    return flat_gradient(mine), flat_gradient(theirs)


def test_gradient_reaches_the_first_policy_alone() -> None:
    mine, theirs = gradients(toy_groups())
    assert mine.norm() > 0
    assert len(theirs) == 0


@pytest.mark.parametrize("size", [1, 3, 34, 35, 1000])
def test_how_many_are_compared_at_a_time_is_indifferent(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = toy_groups()
    assert int(batch.mask.sum()) == 34
    whole, _ = gradients(batch)
    value = compare(*models(), batch, kl)
    monkeypatch.setattr(policy, "DECISIONS", size)
    close(compare(*models(), batch, kl).detach(), value.detach())
    assert relative_error(gradients(batch)[0], whole) < 1e-12


def test_padding_is_indifferent_and_nothing_is_nothing() -> None:
    batch = toy_groups()
    wide = compare(*models(), widened(batch, 3), kl)
    close(wide[:, :-3].detach(), compare(*models(), batch, kl).detach())
    assert (wide[:, -3:] == 0).all()
    empty = batch.replace(mask=torch.zeros_like(batch.mask))
    assert (compare(*models(), empty, kl) == 0).all()
