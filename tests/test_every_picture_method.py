"""What every method that asks what only picture policies say must keep to, through the real loop, found by walking.

Gradients are compared in float64, where two orders of the same sum agree to about 1e-15.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_toy import PictureLearner, toy_pictures, toy_policy
from torch import Tensor
from toy import alternatives, check_what_the_file_says, relative_error

from posttrain.core import Groups, Method, catalog, method_files
from posttrain.core.errors import UserError
from posttrain.policies.denoising import DenoisingPolicy
from posttrain.train import checkpoint

CLOSE = 1e-10
PATIENCE = 3  # batches in which every method moves its policy
OWN: dict[str, dict[str, Any]] = {"vard": {"value_alone": 1}}  # rather than 80 steps before the policy moves
NAMES = sorted(name for name in method_files.methods() if "pictures" in catalog.make(name).kinds)

pytestmark = pytest.mark.parametrize("name", NAMES)


def learner_of(method: Method[Any], kind: str = "flow", dtype: torch.dtype = torch.float64) -> PictureLearner:
    """The reference is another random policy."""
    return PictureLearner(method, toy_policy(kind, dtype=dtype), toy_policy(kind, 1, dtype).initial())


def made(name: str, **changes: Any) -> Method[Any]:
    return catalog.make(name, **{**OWN.get(name, {}), **changes})


def gradient(name: str, batch: Groups, kind: str = "flow") -> Tensor:
    """The first that the policy is moved by, which may wait for a critic."""
    return first_gradient(learner_of(made(name), kind), batch)


def first_gradient(learner: PictureLearner, batch: Groups) -> Tensor:
    for _ in range(PATIENCE):
        learner.update(batch)
        if learner.gradients:
            break
    return learner.gradient


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_gradient_is_finite_and_not_zero(name: str, kind: str) -> None:
    found = gradient(name, toy_pictures(kind), kind)
    assert found.isfinite().all()
    assert found.norm() > 0


def test_order_is_indifferent(name: str) -> None:
    batch = toy_pictures()
    moved = batch.take(torch.tensor([9, 8, 11, 10, 2, 0, 1, 3, 4, 6, 7, 5]))
    moved = moved.replace(unit=torch.tensor([10, 40, 7])[moved.unit])
    assert relative_error(gradient(name, moved), gradient(name, batch)) < CLOSE


def test_micro_batches_are_indifferent(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = toy_pictures()
    whole = gradient(name, batch)
    monkeypatch.setattr(DenoisingPolicy, "split", lambda self, b, whole_units: list(torch.arange(len(b)).split(
        4 if whole_units else 3)))
    assert relative_error(gradient(name, batch), whole) < CLOSE


def test_masked_steps_are_never_read(name: str) -> None:
    batch = toy_pictures().replace(logp_old=toy_pictures().logp_behaviour)
    batch.mask[2, 1:3] = batch.mask[7, 0] = False
    told: Any = batch.payload
    hole = ~batch.mask
    spoilt = batch.replace(
        logp_old=batch.logp_behaviour.masked_fill(hole, torch.nan),
        logp_behaviour=batch.logp_behaviour.masked_fill(hole, torch.nan),
        payload=dataclasses.replace(told, **{n: getattr(told, n).masked_fill(hole[..., None], torch.nan)
                                             for n in ("state", "after", "noise")}))
    assert torch.equal(gradient(name, spoilt), gradient(name, batch))


def test_silent_rows_add_nothing(name: str) -> None:
    batch = toy_pictures()
    batch.reward[batch.unit == 1] = 0.5
    method = made(name)
    loud: Any = type("Loud", (type(method),), {"silent": Method.silent})(**dataclasses.asdict(method))
    assert relative_error(gradient(name, batch), first_gradient(learner_of(loud), batch)) < CLOSE


def test_every_hyperparameter_is_used(name: str) -> None:
    def trace(**changes: object) -> Tensor:
        learner, prepared = learner_of(made(name, **changes)), list[Groups]()
        while len(learner.gradients) < 4 and len(prepared) < PATIENCE:
            prepared.append(learner.update(toy_pictures(seed=len(prepared)), len(prepared), lr=0.1))
        columns = [c.reshape(-1) for b in prepared for c in (b.advantage, *b.extra.values()) if c is not None]
        return torch.cat([learner.weights, *columns, torch.tensor(list(learner.run.models.state.values()))])

    normal = trace(epochs=2)
    for field in catalog.find(name).fields:
        changed = False
        for value in alternatives(field.hint, field.default):
            try:
                found = trace(**{"epochs": 2, field.name: value})
            except UserError:
                continue
            changed |= found.shape != normal.shape or not torch.equal(found, normal)
        assert changed, f"{field.name} changes nothing"
        assert field.comment, f"{field.name} has no comment on its line"


def test_file_says_what_it_is(name: str) -> None:
    check_what_the_file_says(name)
    method = catalog.make(name)
    assert type(method)(**json.loads(json.dumps(dataclasses.asdict(method)))) == method


def test_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    method = made(name, epochs=2, minibatches=2)
    batches = [toy_pictures(seed=seed, dtype=torch.float32) for seed in range(4)]
    whole, before, after = (learner_of(method, dtype=torch.float32) for _ in range(3))
    for step, batch in enumerate(batches):
        whole.update(batch, step)
    for step in (0, 1):
        before.update(batches[step], step)
    checkpoint.save(tmp_path, 2, before.run.tensors(), {"state": before.run.models.state}, keep=1)
    found, complaints = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert not complaints
    after.run.load(found.tensors, found.data["state"])
    for step in (2, 3):
        after.update(batches[step], step)
    assert torch.equal(after.weights, whole.weights)
    assert after.metrics == whole.metrics
    assert after.run.models.state == whole.run.models.state
