"""What every method over single transitions must keep to, through the real loop.  Methods are found by walking.

Gradients are compared in float64, where two orders of the same sum agree to about 1e-15.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from control_toy import ControlLearner, setting, toy_transitions
from toy import alternatives, check_what_the_file_says, relative_error

from posttrain.core import Method, Transitions, catalog, method_files
from posttrain.core.errors import UserError
from posttrain.train import checkpoint

CLOSE = 1e-10
NAMES = sorted(name for name in method_files.methods() if catalog.make(name).learns_from == "transitions")
QUICK: dict[str, dict[str, int]] = {  # turns so long that a few updates would see but one of them
    "mrq": {"period": 1}, "porl": {"critic_updates": 1, "policy_every": 1},
    "uni-o4": {"clone_updates": 1, "judge_every": 1, "horizon": 2}}
STEPS = 3  # a method that takes turns has moved every network by then

pytestmark = pytest.mark.parametrize("name", NAMES)


def made(name: str, **changes: object) -> Method[Any]:
    return catalog.make(name, **{**QUICK.get(name, {}), **changes})


def batch_for(name: str, seed: int = 0, dtype: torch.dtype = torch.float64, **changes: object) -> Transitions:
    method = made(name, **changes)
    return toy_transitions(setting(method).spaces, seed, method.noises, dtype=dtype, ahead=method.ahead)


def gradients(learner: ControlLearner, batch: Transitions) -> dict[str, torch.Tensor]:
    for step in range(STEPS):
        learner.update(batch, step, lr=1e-12)  # so that a later step's gradient is at the same place
    return {name: learner.gradient(name) for name in learner.optimizers}


def done(learner: ControlLearner, obs: torch.Tensor) -> list[torch.Tensor]:
    """What the policy does while it learns, where its method has a say in that."""
    method = learner.run.method
    if type(method).led is not Method.led:  # or who acts in its place, after episodes that earned a little less
        method.ended(learner.models, [10.0, 10.0, 10.0, 9.7, 9.7, 9.7, 9.6, 9.6])
        led = method.led(learner.models, torch.arange(0, 200, 7))
        assert led is not None
        return [led.double()]
    if type(method).guide is not Method.guide:  # or what is made up for it to learn from
        action = learner.models.policy.mode(obs.flip(0))
        nudges = [method.guide(learner.models, obs[:, None], action[:, None], taken, 4) for taken in range(4)]
        return [nudge.reshape(-1) for nudge in nudges if nudge is not None]
    if type(method).act is Method.act:
        return []
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(obs), method.candidates, learner.setting.spaces.action, generator=generator).double()
    with torch.no_grad():
        return [method.act(learner.models, obs, noise).reshape(-1)]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for network, expected in one.items():
        assert relative_error(other[network], expected) < CLOSE, network


def by_five(batch: Transitions, whole_units: bool) -> list[torch.Tensor]:
    """Five rows at a time, or a unit where units stay whole."""
    rows = torch.arange(len(batch))
    return [rows[batch.unit == unit] for unit in batch.unit.unique()] if whole_units else list(rows.split(5))


def test_gradients_are_finite_and_not_zero(name: str) -> None:
    for network, found in gradients(ControlLearner(made(name)), batch_for(name)).items():
        assert found.isfinite().all(), network
        assert found.norm() > 0, network


def test_row_order_is_indifferent(name: str) -> None:
    batch = batch_for(name)
    moved = batch.take(torch.tensor([7, 8, 9, 0, 1, 2, 11, 10, 3, 4, 5, 6]))
    same(gradients(ControlLearner(made(name)), batch), gradients(ControlLearner(made(name)), moved))


def test_micro_batches_are_indifferent(name: str) -> None:
    whole, split = ControlLearner(made(name)), ControlLearner(made(name))
    split.setting.policy.split = by_five  # type: ignore[method-assign]
    same(gradients(whole, batch_for(name)), gradients(split, batch_for(name)))


def test_nothing_follows_termination(name: str) -> None:
    """Whatever the replay holds as the next observation of a terminated row."""
    batch = batch_for(name)
    other = torch.where(batch.terminated[:, None], 7.0, batch.next_obs)
    same(gradients(ControlLearner(made(name)), batch),
         gradients(ControlLearner(made(name)), batch.replace(next_obs=other)))


def test_a_span_of_three_actions_discounts_by_the_third_power(name: str) -> None:
    """What follows the third action is worth γ³ as much; or it is refused, where a method says nothing of spans."""
    method = made(name)
    if "spans" not in method.replays:
        with pytest.raises(UserError, match="span = 3"):
            setting(method, **{"replay": "uniform", "span": 3})
        return
    batch = batch_for(name)
    cubed = made(name, discount=method.discount**3)  # type: ignore[attr-defined]
    same(gradients(ControlLearner(method), batch.replace(span=torch.full((len(batch),), 3))),
         gradients(ControlLearner(cubed), batch))


def test_survives_json(name: str) -> None:
    method = catalog.make(name)
    assert catalog.make(name, **json.loads(json.dumps(dataclasses.asdict(method)))) == method


def test_every_hyperparameter_is_used(name: str) -> None:
    def trace(**changes: object) -> torch.Tensor:
        learner = ControlLearner(made(name, **changes))
        for step in range(4):
            learner.update(batch_for(name, step, **changes), step, lr=0.1)
        weights = [p.detach().reshape(-1) for n in learner.run.method.needs
                   for p in getattr(learner.models, n).module.parameters()]
        return torch.cat([learner.weights, *weights, *done(learner, batch_for(name).obs)])

    normal = trace()
    for field in catalog.find(name).fields:
        changed = False
        shortest = [1] if isinstance(field.default, int) else []  # a period longer than the four updates
        for value in [*alternatives(field.hint, field.default), *shortest]:
            try:
                found = trace(**{field.name: value})
            except UserError:
                continue
            changed |= not torch.equal(found, normal)
        assert changed, f"{field.name} changes neither a weight nor what is done"
        assert field.comment, f"{field.name} has no comment on its line"


def test_file_says_what_it_is(name: str) -> None:
    check_what_the_file_says(name)


def test_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    method, batches = made(name), [batch_for(name, seed, torch.float32) for seed in range(4)]
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
