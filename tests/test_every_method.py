"""What every method must keep to, through the real loop.  Methods are found by walking the package.

Gradients are compared in float64, where two orders of the same sum agree to about 1e-15.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import (
    TOOL,
    Learner,
    TableCritic,
    TablePolicy,
    alternatives,
    check_what_the_file_says,
    language_learner,
    relative_error,
    sequences,
    table_groups,
    toy_groups,
    widened,
)

from posttrain.core import Batch, Groups, Loss, Method, Models, catalog, method_files
from posttrain.core.errors import UserError
from posttrain.train import checkpoint

CLOSE = 1e-10  # relative, of float64 gradients
NAMES = sorted(name for name in method_files.methods() if catalog.make(name).learns_from != "transitions"
               and "language" in (catalog.make(name).kinds or ("language",)))

pytestmark = pytest.mark.parametrize("name", NAMES)


def gradient(method: Method[Any], batch: Groups, budget: int = 2048) -> Tensor:
    learner = language_learner(method, budget)
    learner.update(batch)
    return learner.gradient


def without(method: Method[Any], name: str) -> Method[Any]:
    """The same method with one function as every method has it by default."""
    changed = type(type(method).__name__, (type(method),), {name: getattr(Method, name)})
    made: Method[Any] = changed(**dataclasses.asdict(method))
    return made


def test_gradient_is_finite_and_not_zero(name: str) -> None:
    learner = language_learner(catalog.make(name))
    learner.update(toy_groups())
    assert learner.gradient.isfinite().all()
    assert learner.gradient.norm() > 0
    assert all(torch.tensor(v).isfinite() for v in learner.metrics.values()), learner.metrics


def test_padding_width_is_indifferent(name: str) -> None:
    method, batch = catalog.make(name), toy_groups()
    assert relative_error(gradient(method, widened(batch, 5)), gradient(method, batch)) < CLOSE


@pytest.mark.parametrize("budget", [1, 15, 40])  # one row (or unit) each, a few rows, a unit or two
def test_micro_batches_are_indifferent(name: str, budget: int) -> None:
    method, batch = catalog.make(name), toy_groups()
    assert len(language_learner(method, budget).models.policy.split(batch, method.couples_rows)) > 1
    assert relative_error(gradient(method, batch, budget), gradient(method, batch)) < CLOSE


def test_row_order_is_indifferent(name: str) -> None:
    method, batch = catalog.make(name), toy_groups()
    rows = torch.tensor([3, 0, 2, 1, 6, 4, 5, 9, 8, 7])  # within each group
    assert relative_error(gradient(method, batch.take(rows)), gradient(method, batch)) < CLOSE


def test_unit_order_is_indifferent(name: str) -> None:
    method, batch = catalog.make(name), toy_groups()
    moved = batch.take(torch.tensor([7, 8, 9, 0, 1, 2, 3, 4, 5, 6]))
    moved = moved.replace(unit=torch.tensor([10, 40, 7])[moved.unit])  # other numbers, in another order
    assert relative_error(gradient(method, moved, budget=40), gradient(method, batch, budget=40)) < CLOSE


def test_masked_columns_are_never_read(name: str) -> None:
    method, batch = catalog.make(name), toy_groups().replace(logp_old=toy_groups(1).logp_behaviour)
    spoilt = batch.replace(version=batch.version.masked_fill(~batch.mask, 99), **{
        column: getattr(batch, column).masked_fill(~batch.mask, torch.nan)
        for column in ("logp_behaviour", "logp_old")})
    assert spoilt.logp_behaviour[TOOL].isnan().all()
    assert torch.equal(gradient(method, spoilt), gradient(method, batch))


def test_a_masked_token_is_not_learnt(name: str) -> None:
    """A tool's answer at a completion's end: which tokens it has changes nothing, because no decision follows."""
    method, batch = catalog.make(name), toy_groups()
    batch.mask[4, 5:7] = False
    tokens = sequences(batch).tokens.clone()
    tokens[4, 5:7] = (tokens[4, 5:7] + 13) % 97
    other = batch.replace(payload=dataclasses.replace(sequences(batch), tokens=tokens))
    learners = language_learner(method), language_learner(method)
    for learner, each in zip(learners, (batch, other), strict=True):
        learner.update(each)
    assert relative_error(learners[1].gradient, learners[0].gradient) < CLOSE
    losses = [{k: v for k, v in learner.metrics.items() if k.startswith("loss/")} for learner in learners]
    assert losses[1] == pytest.approx(losses[0], rel=CLOSE, abs=1e-14)


@pytest.mark.parametrize("budget", [30, 2048])
def test_ratio_is_exactly_one_before_the_first_update(name: str, budget: int) -> None:
    """In fp32 too, and however rows are packed and reused; `log_ratio` is what every method reads."""
    seen: list[tuple[int, Tensor]] = []

    def loss(self: Method[Any], models: Models, batch: Batch) -> Loss:
        seen.append((len(learner.gradients), batch.log_ratio(models.policy.log_prob(batch)).detach()))
        return plain.loss(self, models, batch)

    plain = type(catalog.make(name))
    watched = type("Watched", (plain,), {"loss": loss})
    for reuse in ({}, {"epochs": 2, "minibatches": 2}):
        seen.clear()
        learner = language_learner(watched(**reuse), budget, torch.float32)
        learner.update(toy_groups(dtype=torch.float32), step=1)  # its first minibatch packs otherwise than the batch
        first = [log_ratio for updates, log_ratio in seen if updates == 0]
        assert first
        assert all((log_ratio == 0).all() for log_ratio in first)
    assert max(float(log_ratio.abs().max()) for _, log_ratio in seen) > 0  # later ones do move


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes that share an update ends with, by method."""
    out = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).parent / "two_ranks.py"
    subprocess.run([sys.executable, str(script), str(out), *NAMES], check=True, timeout=300)
    return [torch.load(out / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_processes_are_indifferent(name: str, two_ranks: list[dict[str, Any]]) -> None:
    alone = language_learner(catalog.make(name, epochs=1, minibatches=1))
    alone.update(toy_groups())
    (gradient_0, weights_0, metrics), (gradient_1, weights_1, others) = (rank[name] for rank in two_ranks)
    assert torch.equal(gradient_0, gradient_1)
    assert torch.equal(weights_0, weights_1)
    assert metrics == others
    assert relative_error(gradient_0, alone.gradient) < CLOSE
    assert metrics == pytest.approx(alone.metrics, rel=1e-6, abs=1e-9)


def edge_cases() -> Iterator[tuple[str, Groups]]:
    full = [[1, 1, 1]] * 4
    yield "a group of one", table_groups([1.0, 0.0, 1.0, 0.0], full, group=[0, 1, 1, 2], dtype=torch.float32)
    yield "equal rewards", table_groups([0.1] * 4, full, dtype=torch.float32)
    yield "a row without decisions", table_groups([1.0, 0.0, 0.5, 0.0], [[0, 0, 0], *full[1:]], dtype=torch.float32)
    yield "no decisions at all", table_groups([1.0, 0.0, 0.5, 0.0], [[0, 0, 0]] * 4, dtype=torch.float32)
    yield "one-token completions", table_groups([1.0, 0.0, 0.5, 0.0], [[1, 0, 0]] * 4, dtype=torch.float32)
    yield "huge rewards", table_groups([1e30, -1e30, 0.0, 1.0], full, dtype=torch.float32)


@pytest.mark.parametrize(("case", "batch"), [pytest.param(c, b, id=c) for c, b in edge_cases()])
@pytest.mark.parametrize("far", [0.0, 50.0, -50.0])
def test_edge_cases_give_no_nan(name: str, case: str, batch: Groups, far: float) -> None:
    """`far`: log π − log π_old and log π − log π_ref in nats.

    exp(±50) is still a number in fp32.  Where the gradient's norm is not, the optimizer leaves the weights alone.
    """
    table = torch.full((4, 3), -60.0)
    batch = batch.replace(logp_old=table - far)
    learner = Learner(catalog.make(name), TablePolicy(table), TablePolicy(table - far), critic=TableCritic(table))
    prepared = learner.update(batch)
    assert not learner.gradient.isnan().any()
    assert learner.weights.isfinite().all()
    if prepared.advantage is not None:
        assert prepared.advantage.isfinite().all()
    if case == "no decisions at all":
        assert (learner.gradient == 0).all()


def test_survives_json(name: str) -> None:
    method = catalog.make(name)
    assert type(method)(**json.loads(json.dumps(dataclasses.asdict(method)))) == method
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.epochs = 3  # type: ignore[misc]


REFUSED = {"trpo": {"damping": 0.0, "radius": 0.1}}  # so far that a first step is refused


def traces(method: Method[Any]) -> list[Tensor]:
    """All that two updates leave behind: the first from fresh samples, the second far from the sampler."""
    learner = language_learner(method)
    prepared = [learner.update(toy_groups(0), 0),
                learner.update(toy_groups(1).replace(logp_old=toy_groups(2).logp_behaviour), 1)]
    columns = [c for batch in prepared for c in (batch.advantage, *batch.extra.values()) if c is not None]
    return [*learner.gradients, learner.weights, *columns, torch.tensor(list(learner.models.state.values()))]


def test_every_hyperparameter_is_used(name: str) -> None:
    """At the defaults, or where what it is for comes about."""
    bases, seen = [{}, *([REFUSED[name]] if name in REFUSED else [])], dict[str, list[Tensor]]()

    def traced(**given: Any) -> list[Tensor]:
        if str(given) not in seen:
            seen[str(given)] = traces(catalog.make(name, **given))
        return seen[str(given)]

    def differs(base: dict[str, Any], changed: dict[str, Any]) -> bool:
        try:
            normal, other = traced(**base), traced(**base | changed)
        except UserError:
            return False
        return len(other) != len(normal) or not all(map(torch.equal, other, normal))

    for field in catalog.find(name).fields:
        values = [*alternatives(field.hint, field.default), *([1] if isinstance(field.default, int) else [])]
        assert any(differs(base, {field.name: value}) for base in bases for value in values), (
            f"{field.name} changes neither gradients, nor the batch, nor the number of updates")


def test_every_hyperparameter_is_documented(name: str) -> None:
    for field in catalog.find(name).fields:
        assert field.comment, f"{field.name} has no comment on its line"


def test_file_says_what_it_is(name: str) -> None:
    check_what_the_file_says(name)


def quiet_variants(name: str) -> list[Method[Any]]:
    """The method as it is, and with each number that may be 0 at 0."""
    made = [catalog.make(name)]
    for field in catalog.find(name).fields:
        try:
            made.append(catalog.make(name, **{field.name: 0}))
        except UserError:
            continue
    return made


def test_silent_rows_add_nothing(name: str) -> None:
    declared = 0
    for method in quiet_variants(name):
        batch = toy_groups().replace(logp_old=toy_groups(1).logp_behaviour)
        learner, loud = language_learner(method), language_learner(without(method, "silent"))
        prepared = learner.update(batch)
        loud.update(batch)
        silent = method.silent(prepared)
        declared += 0 if silent is None else int(silent.sum())
        assert relative_error(learner.gradient, loud.gradient) < 1e-12
    if type(catalog.make(name)).silent is not Method.silent:
        assert declared > 0, "no row was ever silent, so nothing was checked"


def test_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    method = catalog.make(name, epochs=2, minibatches=2)
    batches = [toy_groups(seed, torch.float32) for seed in range(4)]
    whole = language_learner(method, dtype=torch.float32)
    for step, batch in enumerate(batches):
        whole.update(batch, step)

    before = language_learner(method, dtype=torch.float32)
    for step in (0, 1):
        before.update(batches[step], step)
    checkpoint.save(tmp_path, 2, before.run.tensors(), {"state": before.models.state}, keep=1)

    after = language_learner(method, dtype=torch.float32)
    found, complaints = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert not complaints
    after.run.load(found.tensors, found.data["state"])
    for step in (2, 3):
        after.update(batches[step], step)
    assert torch.equal(after.weights, whole.weights)
    assert after.models.state == whole.models.state
    assert after.metrics == whole.metrics
