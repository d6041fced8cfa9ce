"""What every method with a kind of policy of its own must keep to on its own acting, through the real loop.

Gradients are compared in float64, where two orders of the same sum agree to about 1e-15.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from control_toy import ControlLearner, acted
from toy import alternatives, check_what_the_file_says, relative_error

from posttrain.core import Groups, catalog, method_files
from posttrain.core.errors import UserError
from posttrain.train import checkpoint

CLOSE = 1e-10
NAMES = sorted(name for name in method_files.methods() if catalog.make(name).learns_from == "samples"
               and catalog.make(name).policies)
TURNS = {"gorl": {"latent_batches": 2, "decoder_batches": 1}}  # so that every network has moved after three batches

pytestmark = pytest.mark.parametrize("name", NAMES)


def learner(name: str, dtype: torch.dtype = torch.float64, **changes: Any) -> ControlLearner:
    return ControlLearner(catalog.make(name, **{**TURNS.get(name, {}), **changes}), dtype=dtype, denoising_steps=3)


def gradients(name: str, batch: Groups, made: ControlLearner | None = None) -> dict[str, torch.Tensor]:
    made = made or learner(name)
    for step in range(3):
        made.update(batch, step, lr=1e-12)  # so that a later step's gradient is at the same place
    return {network: made.gradient(network) for network in made.optimizers}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for network, expected in one.items():
        assert relative_error(other[network], expected) < CLOSE, network


def test_gradients_are_finite_and_not_zero(name: str) -> None:
    for network, found in gradients(name, acted(name)).items():
        assert found.isfinite().all(), network
        assert found.norm() > 0, network


def test_the_ratio_is_1_before_the_first_update(name: str) -> None:
    made, batch = learner(name, epochs=2), acted(name)
    gap = (made.setting.policy.log_prob(batch) - batch.logp_behaviour)[batch.mask]
    assert gap.abs().max() < 1e-5  # what the sampler said, in fp32, and what is scored
    made.update(batch, lr=0.0)
    assert made.metrics["ratio"] == 1.0


def test_row_order_is_indifferent(name: str) -> None:
    batch = acted(name)
    same(gradients(name, batch), gradients(name, batch.take(torch.arange(len(batch) - 1, -1, -1))))


def test_micro_batches_are_indifferent(name: str) -> None:
    split = learner(name)
    split.setting.policy.split = lambda batch, whole_units: list(torch.arange(len(batch)).split(3))  # type: ignore[method-assign]
    same(gradients(name, acted(name)), gradients(name, acted(name), split))


def test_padding_is_never_read(name: str) -> None:
    batch = acted(name)
    assert not batch.mask.all()
    steps: Any = batch.payload
    hole = ~batch.mask
    spoilt = batch.replace(logp_behaviour=batch.logp_behaviour.masked_fill(hole, torch.nan),
                           payload=dataclasses.replace(steps, obs=steps.obs.masked_fill(hole[..., None], torch.nan),
                                                       action=steps.action.masked_fill(hole[..., None], torch.nan)))
    same(gradients(name, batch), gradients(name, spoilt))


def test_every_hyperparameter_is_used(name: str) -> None:
    def trace(**changes: object) -> torch.Tensor:
        made = learner(name, **{"epochs": 2, "minibatches": 2, **changes})
        for step in range(4):
            made.update(acted(name, step), step, lr=1e-3)
        return made.weights

    normal = trace()
    for field in catalog.find(name).fields:
        changed = False
        for value in alternatives(field.hint, field.default):
            try:
                found = trace(**{field.name: value})
            except UserError:
                continue
            changed |= found.shape != normal.shape or not torch.equal(found, normal)
        assert changed, f"{field.name} changes no weight"
        assert field.comment, f"{field.name} has no comment on its line"


def test_file_says_what_it_is(name: str) -> None:
    check_what_the_file_says(name)
    method = catalog.make(name)
    assert type(method)(**json.loads(json.dumps(dataclasses.asdict(method)))) == method


def test_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    batches = [acted(name, seed, torch.float32) for seed in range(4)]
    whole, before, after = (learner(name, torch.float32, epochs=2, minibatches=2) for _ in range(3))
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
