"""Log-probabilities from hidden states against plain autograd, however they are chunked and kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from posttrain.nets import head

ROWS, WIDTH, VOCABULARY = 11, 6, 23


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(ROWS, WIDTH, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator).to(dtype).requires_grad_()
    target = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    return hidden, weight, target, torch.randn(2, ROWS, generator=generator).to(dtype)


def plain(hidden: Tensor, weight: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    table = (hidden @ weight.t() / temperature).log_softmax(-1)
    return table.gather(1, target[:, None])[:, 0], -(table.exp() * table).sum(-1)


def limits(monkeypatch: pytest.MonkeyPatch, rows: int, keep: bool) -> None:
    monkeypatch.setattr(head, "CHUNK_BYTES", 4 * VOCABULARY * rows)
    monkeypatch.setattr(head, "KEEP_BYTES", 1 << 30 if keep else 0)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_values_and_gradients(monkeypatch: pytest.MonkeyPatch, rows: int, keep: bool, entropy: bool,
                              temperature: float) -> None:
    limits(monkeypatch, rows, keep)
    hidden, weight, target, (a, b) = inputs()
    logp, ent = head.token_log_prob(hidden, weight, target, temperature, entropy)
    expected_logp, expected_ent = plain(hidden, weight, target, temperature)
    assert_close(logp, expected_logp)
    expected = (a * expected_logp).sum()
    found = (a * logp).sum()
    if entropy:
        assert ent is not None
        assert_close(ent, expected_ent)
        expected, found = expected + (b * expected_ent).sum(), found + (b * ent).sum()
    else:
        assert ent is None
    for x, y in zip(torch.autograd.grad(found, (hidden, weight)), torch.autograd.grad(expected, (hidden, weight)),
                    strict=True):
        assert_close(x, y, rtol=1e-10, atol=1e-12)


def test_gradient_goes_to_main_grad_where_there_is_one() -> None:
    hidden, weight, target, (a, _) = inputs()
    (expected,) = torch.autograd.grad((a * plain(hidden, weight, target, 1.0)[0]).sum(), weight)
    weight.main_grad = torch.ones_like(weight)  # type: ignore[attr-defined]
    (a * head.token_log_prob(hidden, weight, target)[0]).sum().backward()
    assert weight.grad is None
    assert_close(weight.main_grad, 1 + expected)  # type: ignore[attr-defined]


def test_bf16_weights_give_fp32_scores() -> None:
    hidden, weight, target, (a, _) = inputs(torch.bfloat16)
    logp, _ = head.token_log_prob(hidden, weight, target)
    assert logp.dtype == torch.float32
    assert_close(logp, plain(hidden.float(), weight.float(), target, 1.0)[0], rtol=0.02, atol=0.05)
    (a.float() * logp).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


def test_frozen_weight_gets_no_gradient() -> None:
    hidden, weight, target, _ = inputs()
    frozen = weight.detach()
    head.token_log_prob(hidden, frozen, target)[0].sum().backward()
    assert frozen.grad is None
    assert hidden.grad is not None


def test_nothing_to_score() -> None:
    hidden, weight, target, _ = inputs()
    logp, ent = head.token_log_prob(hidden[:0], weight, target[:0], entropy=True)
    assert logp.shape == (0,)
    assert ent is not None
    assert ent.shape == (0,)


def test_certain_tokens_have_zero_entropy_and_finite_gradients() -> None:
    hidden, weight = torch.tensor([[300.0]], requires_grad=True), torch.tensor([[1.0], [0.0], [-1.0]])
    logp, ent = head.token_log_prob(hidden, weight, torch.tensor([2]), entropy=True)
    assert ent is not None
    assert float(logp.detach()) == -600
    assert float(ent.detach()) == 0
    (logp + ent).sum().backward()
    assert hidden.grad is not None
    assert float(hidden.grad) == -2  # d log p₂ / dh = w₂ − Σ p w = −1 − 1


def test_embedding_rows_and_gradient() -> None:
    # Token 2 twice: its row of the gradient is the sum of both.
    weight = torch.arange(8.0).view(4, 2).requires_grad_()
    out = head.embed(torch.tensor([2, 0, 2]), weight)
    assert out.tolist() == [[4, 5], [0, 1], [4, 5]]
    (out * torch.tensor([[1.0], [10.0], [100.0]])).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[10, 10], [0, 0], [101, 101], [0, 0]]


def test_known_logits_are_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients are the same, the first time, which writes over them, and the second."""
    hidden, weight, target, (a, b) = inputs()
    logits = (hidden @ weight.t()).detach()
    logp, ent = head.token_log_prob(hidden, weight, target, 0.7, True, logits.clone())
    expected_logp, expected_ent = plain(hidden, weight, target, 0.7)
    assert ent is not None
    assert_close(logp, expected_logp)
    expected = torch.autograd.grad((a * expected_logp + b * expected_ent).sum(), (hidden, weight))
    for _ in range(2):
        found = torch.autograd.grad((a * logp + b * ent).sum(), (hidden, weight), retain_graph=True)
        for x, y in zip(found, expected, strict=True):
            assert_close(x, y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("learns", [False, True])
def test_known_logits_of_more_rows_than_a_chunk(monkeypatch: pytest.MonkeyPatch, learns: bool) -> None:
    """Frozen weights keep nothing, and go through what they compute themselves in chunks."""
    limits(monkeypatch, 4, keep=False)
    hidden, weight, target, _ = inputs()
    if not learns:
        hidden, weight = hidden.detach(), weight.detach()
    logp, _ = head.token_log_prob(hidden, weight, target, logits=(hidden @ weight.t()).detach())
    assert_close(logp, plain(hidden, weight, target, 1.0)[0])
