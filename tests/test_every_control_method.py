"""What every method that learns from its own acting must keep to on control, through the real loop, found by walking.

Gradients are compared in float64, where two orders of the same sum agree to about 1e-15.
"""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from control_toy import ControlLearner, toy_segments
from torch import Tensor
from toy import alternatives, check_what_the_file_says, relative_error

from posttrain.core import Batch, Groups, Loss, Method, catalog, method_files
from posttrain.core.errors import UserError
from posttrain.train import checkpoint

CLOSE = 1e-10
NAMES = sorted(name for name in method_files.methods()
               if catalog.make(name).learns_from not in ("transitions", "stretches")
               and catalog.make(name).kinds == ("control",)
               and not catalog.make(name).policies)  # those of policies of their own: test_every_acting_method.py
FEW = {"epochs": 2, "minibatches": 2}
SOON = {"every": 1, "renewal": 1}  # of a method whose networks take turns
REMEMBERS = [0, 5]  # numbers of a memory

pytestmark = pytest.mark.parametrize("name", NAMES)


def made(name: str, **changes: Any) -> Method[Any]:
    """As a run on control has it, but with one update of a batch."""
    stated = catalog.make(name).defaults.get("control", {})
    fields = {f.name for f in dataclasses.fields(catalog.make(name))}
    few = {"epochs": 1, "minibatches": 1, **SOON}
    return catalog.make(name, **{key: value for key, value in {**stated, **few, **changes}.items() if key in fields})


def seen(method: Method[Any], **options: Any) -> Groups:
    """A batch, unless the method takes no policy that remembers."""
    try:
        return toy_segments(method, **options)
    except UserError as error:
        if options["memory"] and "memory = " in str(error):
            pytest.skip(str(error))
        raise


def gradients(method: Method[Any], batch: Groups, **options: Any) -> dict[str, Tensor]:
    learner = ControlLearner(method, **options)
    learner.update(batch)
    return {network: learner.gradient(network) for network in learner.optimizers}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for network, expected in one.items():
        assert relative_error(other[network], expected) < CLOSE, network


@pytest.mark.parametrize("memory", REMEMBERS)
def test_gradients_are_finite_and_not_zero(name: str, memory: int) -> None:
    method = made(name)
    batch = seen(method, memory=memory)
    for network, found in gradients(method, batch, memory=memory).items():
        assert found.isfinite().all(), network
        assert found.norm() > 0, network


def test_row_order_is_indifferent(name: str) -> None:
    method = made(name)
    batch = toy_segments(method)
    moved = batch.take(torch.arange(len(batch)).flip(0))
    same(gradients(method, batch), gradients(method, moved.replace(unit=moved.unit + 7)))


def test_micro_batches_are_indifferent(name: str) -> None:
    method = made(name)
    batch, split = toy_segments(method), ControlLearner(method)
    split.setting.policy.split = lambda batch, whole_units: list(torch.arange(len(batch)).split(5))  # type: ignore[method-assign]
    split.update(batch)
    same(gradients(method, batch), {network: split.gradient(network) for network in split.optimizers})


def test_padding_is_never_read(name: str) -> None:
    method = made(name)
    batch = toy_segments(method)
    hole = torch.zeros_like(batch.mask)
    hole[0, -5:] = True  # the row's last decisions, as if it had ended before
    batch = batch.replace(mask=batch.mask & ~hole)
    payload: Any = batch.payload
    changed = {name: x.clone() for name in ("obs", "action", "post") if (x := getattr(payload, name)) is not None}
    for x in changed.values():
        x[hole] = 1
    spoilt = batch.replace(logp_behaviour=batch.logp_behaviour.masked_fill(~batch.mask, torch.nan),
                           payload=dataclasses.replace(payload, **changed))
    same(gradients(method, batch), gradients(method, spoilt))


@pytest.mark.parametrize("memory", REMEMBERS)
def test_ratio_is_exactly_one_before_the_first_update(name: str, memory: int) -> None:
    noted: list[tuple[int, Tensor]] = []

    def loss(self: Method[Any], models: Any, batch: Batch) -> Loss:
        noted.append((len(learner.optimizers["policy"].gradients),  # type: ignore[attr-defined]
                      batch.log_ratio(models.policy.log_prob(batch)).detach()))
        return plain.loss(self, models, batch)

    method = made(name, **FEW)
    plain = type(method)
    watched = type("Watched", (plain,), {"loss": loss})(**dataclasses.asdict(method))
    options: dict[str, Any] = {"memory": memory, "recall": 8, "segment": 24, "envs": 2}
    batch = seen(method, dtype=torch.float32, **options)
    learner = ControlLearner(watched, dtype=torch.float32, **options)
    learner.update(batch)
    assert all((log_ratio == 0).all() for updates, log_ratio in noted if updates == 0)
    assert max(float(log_ratio.abs().max()) for _, log_ratio in noted) > 0


def test_survives_json(name: str) -> None:
    method = catalog.make(name)
    assert catalog.make(name, **json.loads(json.dumps(dataclasses.asdict(method)))) == method


def test_every_hyperparameter_is_used(name: str) -> None:
    @cache
    def trace(**changes: Any) -> Tensor:
        method = made(name, **{**FEW, "kl_coef": 0.1, **changes} if "kl_coef" in fields else {**FEW, **changes})
        learner = ControlLearner(method)
        prepared = [learner.update(toy_segments(method, seed), seed, lr=0.1) for seed in range(2)]
        columns = [c.reshape(-1).double() for b in prepared for c in (b.advantage, *b.extra.values()) if c is not None]
        return torch.cat([learner.weights, *columns])

    fields = {field.name for field in catalog.find(name).fields}
    values = {field.name: [*alternatives(field.hint, field.default), *[2] * (field.name in SOON)]
              for field in catalog.find(name).fields}
    bases = [{}, *({other: value} for other, found in values.items() for value in found)]

    def differs(base: dict[str, Any], changed: dict[str, Any]) -> bool:
        try:
            normal, found = trace(**base), trace(**base | changed)
        except UserError:
            return False
        return len(found) != len(normal) or not torch.equal(found, normal)

    for field in catalog.find(name).fields:
        assert any(differs(base, {field.name: value}) for base in bases if field.name not in base
                   for value in values[field.name]), f"{field.name} changes nothing, whatever the others are"
        assert field.comment, f"{field.name} has no comment on its line"


def test_file_says_what_it_is(name: str) -> None:
    check_what_the_file_says(name)


def test_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    method = made(name, **FEW)
    batches = [toy_segments(method, seed, torch.float32) for seed in range(4)]
    whole, before, after = (ControlLearner(method, dtype=torch.float32) for _ in range(3))
    for step, batch in enumerate(batches):
        whole.update(batch, step)
    for step in (0, 1):
        before.update(batches[step], step)
    checkpoint.save(tmp_path, 2, before.run.tensors(), {"state": before.models.state}, keep=1)
    found, complaints = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert not complaints
    after.run.load(found.tensors, found.data["state"])
    for step in (2, 3):
        after.update(batches[step], step)
    assert torch.equal(after.weights, whole.weights)
    assert after.models.state == whole.models.state
    assert after.metrics == whole.metrics
