"""DroQ's dropout: how much, by whom decided, and nothing without it."""

from __future__ import annotations

import pytest
import torch
from control_toy import setting, toy_transitions

from posttrain.core import Models
from posttrain.methods.off_policy.droq import DroQ
from posttrain.methods.off_policy.redq import REDQ
from posttrain.nets.mlp import Ensemble, scattered


def test_units_are_left_out_evenly_and_by_each_rows_seed_alone() -> None:
    seeds = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).view(torch.int64)
    found = scattered(seeds, 0, 2, 100)
    assert float(found.mean()) == pytest.approx(0.5, abs=0.02)  # 10,000 numbers of deviation 0.29: ± 0.003
    assert float((found < 0.1).double().mean()) == pytest.approx(0.1, abs=0.02)
    assert torch.equal(scattered(seeds[7:9], 0, 2, 100), found[:, 7:9])
    assert not torch.equal(scattered(seeds, 1, 2, 100), found)
    assert float(torch.corrcoef(found[:, :2].reshape(4, 100)).triu(1).abs().max()) < 0.4  # of 100 pairs each


def test_what_is_kept_is_scaled_to_the_same_mean() -> None:
    # One hidden unit without activation's bend: Q = 2 x with weights 1 and 2, x > 0.  With p = ½ it is 0 or 4 x.
    body = Ensemble(1, [1, 1, 1], "relu", torch.Generator())
    for w, value in zip([*body.weights, *body.biases], [1.0, 2.0, 0.0, 0.0], strict=True):
        w.data.fill_(value)
    x, seeds = torch.ones(400, 1), torch.arange(400)
    found = body(x, (0.5, seeds))[0, :, 0]
    assert set(found.tolist()) == {0.0, 4.0}
    assert float(found.mean()) == pytest.approx(2.0, abs=0.4)  # deviation 2 / √400 = 0.1
    assert torch.equal(body(x, (0.0, seeds)), body(x))


def test_without_dropout_it_is_redq_of_two_with_layer_norm() -> None:
    method = DroQ(dropout=0.0)
    made = setting(method)
    networks = {name: build() for name, build in {"policy": lambda: made.policy, **made.networks()}.items()
                if name in method.needs}
    for network in networks.values():
        network.module.double()
    assert networks["q"].body.layer_norm
    batch = toy_transitions(made.spaces, noises=6).counted()
    models = Models({"updates": 0.0}, **networks)
    one, other = (m.loss(models, batch).value for m in (method, REDQ(members=2)))
    assert float(one.detach()) == pytest.approx(float(other.detach()), abs=1e-12)
    assert float(DroQ(dropout=0.5).loss(models, batch).value.detach()) != pytest.approx(float(one.detach()), abs=1e-3)
