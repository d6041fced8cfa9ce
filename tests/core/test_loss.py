"""A loss is its named terms, added; metrics carry no gradient."""

import torch

from posttrain.core import Loss, Term


def test_terms_are_added() -> None:
    # 6 / 4 + 1 / 2 = 2.
    loss = Loss(policy=Term(torch.tensor(6.0), 4, 2), kl=Term(torch.tensor(1.0), 2, 2))
    assert float(loss.value) == 2
    assert list(loss.terms) == ["policy", "kl"]


def test_an_empty_count_gives_zero() -> None:
    assert float(Term(torch.tensor(0.0), 0, 0).value) == 0


def test_gradient_is_divided_by_the_global_count() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    Loss(policy=Term(x.sum(), 8, 2)).value.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1 / 8, 1 / 8]


def test_metrics_carry_no_gradient() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    term = Term(x, 1, 1)
    loss = Loss(policy=term)
    assert loss.log(size=term) is loss
    assert not loss.metrics["size"].sum.requires_grad
    assert loss.value.requires_grad
