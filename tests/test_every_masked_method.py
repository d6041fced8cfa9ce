"""What methods that ask something of masked-diffusion models must keep to, through the real loop; found by walking.

Gradients are compared in float64, where two orders of the same sum agree to about 1e-15.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from masked_toy import canvases, masked_learner, masked_policy
from torch import Tensor
from toy import alternatives, check_what_the_file_says, relative_error

from posttrain.core import Groups, Method, catalog, method_files
from posttrain.core.errors import UserError
from posttrain.train import checkpoint

CLOSE = 1e-10


def asks(method: Method[Any]) -> bool:
    return "masked" in method.kinds or method.likelihood != "one-step" or method.redraws


NAMES = sorted(name for name in method_files.methods() if asks(catalog.make(name)))

pytestmark = pytest.mark.parametrize("name", NAMES)


def frozen(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> Groups:
    return masked_policy(catalog.make(name).likelihood, dtype=dtype).freeze(
        canvases(seed, dtype, scheduled="schedule" in catalog.make(name).needs), seed)


def gradient(method: Method[Any], batch: Groups, budget: int = 4096) -> Tensor:
    """Of each network's first step; one that waits for its turn has it after a step that moves next to nothing."""
    learner = masked_learner(method, budget=budget)
    learner.update(batch, lr=1e-12)
    return torch.cat([optimizer.gradients[0] for optimizer in learner.optimizers.values()])  # type: ignore[attr-defined]


def made(name: str) -> Method[Any]:
    return catalog.make(name, epochs=2)


def test_gradient_is_finite_and_not_zero(name: str) -> None:
    learner = masked_learner(made(name))
    learner.update(frozen(name), lr=1e-12)
    for optimizer in learner.optimizers.values():
        found = optimizer.gradients[0]  # type: ignore[attr-defined]
        assert found.isfinite().all()
        assert found.norm() > 0


def test_micro_batches_and_row_order_are_indifferent(name: str) -> None:
    batch = frozen(name)
    rows = torch.tensor([3, 0, 2, 1, 6, 4, 5, 9, 8, 7])
    moved = batch.take(rows)
    moved = moved.replace(unit=torch.tensor([10, 40, 7])[moved.unit])
    assert relative_error(gradient(made(name), moved, 40), gradient(made(name), batch)) < CLOSE


def test_masked_columns_are_never_read(name: str) -> None:
    batch = frozen(name)
    batch.mask[4, -1] = False
    spoilt = batch.replace(logp_behaviour=batch.logp_behaviour.masked_fill(~batch.mask, torch.nan),
                           version=batch.version.masked_fill(~batch.mask, 99))
    assert torch.equal(gradient(made(name), spoilt), gradient(made(name), batch))


def test_silent_rows_add_nothing(name: str) -> None:
    loud: Any = type("Loud", (type(made(name)),), {"silent": Method.silent})(**dataclasses.asdict(made(name)))
    assert relative_error(gradient(made(name), frozen(name)), gradient(loud, frozen(name))) < CLOSE


def test_every_hyperparameter_is_used(name: str) -> None:
    def trace(**changes: object) -> Tensor:
        learner = masked_learner(catalog.make(name, **{"epochs": 3, **changes}))
        prepared = [learner.update(frozen(name, seed), seed, lr=0.03) for seed in range(2)]
        columns = [c.double().flatten() for b in prepared for c in (b.advantage, *b.extra.values()) if c is not None]
        return torch.cat([learner.weights, *columns])

    normal = trace()
    for field in catalog.find(name).fields:
        changed = False
        for value in alternatives(field.hint, field.default):
            try:
                changed = changed or not torch.equal(trace(**{field.name: value}), normal)
            except UserError:
                continue
        assert changed, f"{field.name} changes nothing"
        assert field.comment, f"{field.name} has no comment on its line"


def test_file_says_what_it_is(name: str) -> None:
    check_what_the_file_says(name)
    method = catalog.make(name)
    assert type(method)(**json.loads(json.dumps(dataclasses.asdict(method)))) == method


def test_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    method = catalog.make(name, epochs=2, minibatches=2)
    whole, after = masked_learner(method, torch.float32), masked_learner(method, torch.float32)
    whole.update(frozen(name, 0, torch.float32), 0)
    checkpoint.save(tmp_path, 1, whole.run.tensors(), {"state": whole.models.state}, keep=1)
    whole.update(frozen(name, 1, torch.float32), 1)
    found, _ = checkpoint.load_newest(tmp_path)
    assert found is not None
    after.run.load(found.tensors, found.data["state"])
    after.update(frozen(name, 1, torch.float32), 1)
    assert torch.equal(after.weights, whole.weights)
    assert after.metrics == whole.metrics
