"""Short forms for tests whose expected numbers are worked by hand, all in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close
from toy import Learner, TablePolicy

from posttrain.core import Groups, Method


def f64(values: Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def ln(values: Sequence[Any]) -> Tensor:
    return f64(values).log()


def close(found: Tensor | float, expected: Tensor | Sequence[Any] | float) -> None:
    """Equal to 1e-10."""
    assert_close(torch.as_tensor(found, dtype=torch.float64), torch.as_tensor(expected, dtype=torch.float64),
                 rtol=0, atol=1e-10)


def learn(method: Method[Any], batch: Groups, logp: Tensor, logp_ref: Tensor | None = None,
          sizes: tuple[int, ...] = ()) -> tuple[dict[str, float], Groups, Tensor]:
    """One update through the real loop: metrics, the batch as prepared, dL / dlog π [B, T].

    `sizes` are those of the micro-batches, over the rows that are not silent.
    """
    learner = Learner(method, TablePolicy(logp, sizes), None if logp_ref is None else TablePolicy(logp_ref))
    prepared = learner.update(batch)
    return learner.metrics, prepared, learner.gradient.view(logp.shape)
