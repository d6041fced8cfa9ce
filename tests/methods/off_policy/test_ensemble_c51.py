"""The ensemble's common target by hand; one learner is C51."""

from __future__ import annotations

import pytest
import torch
from table_actions import Numbered
from table_control import table_transitions

from posttrain.core import Models
from posttrain.methods.off_policy.c51 import C51
from posttrain.methods.off_policy.ensemble_c51 import EnsembleC51

GIVEN = {"atoms": 3, "low": 0.0, "high": 2.0, "discount": 0.5}


def network(laws: list[list[float]]) -> Numbered:
    """One action; member k has the law laws[k] in every state."""
    logits = torch.tensor(laws, dtype=torch.float64).log()[:, None, None].expand(-1, 4, 1, 3)
    return Numbered(logits.clone(), C51(**GIVEN).support.double())


def test_all_are_taught_by_the_mean_law() -> None:
    # Laws (0.2, 0.2, 0.6) and (0.3, 0.3, 0.4): mean (0.25, 0.25, 0.5).  r = 0.5: m = (0.125, 0.625, 0.25), as in C51's
    # test.  Slopes of the loss in logits: p_k − m, one row.
    laws = [[0.2, 0.2, 0.6], [0.3, 0.3, 0.4]]
    models = Models({"updates": 0.0}, policy=None, q=network(laws), q_target=network(laws))
    batch = table_transitions([0.5], [False], noises=0).replace(action=torch.tensor([0]))
    method = EnsembleC51(members=2, **GIVEN)
    assert method.target(models, batch)[0].tolist() == pytest.approx([0.125, 0.625, 0.25], abs=1e-12)
    method.loss(models, batch.counted()).value.backward()
    slopes = models.q.values_.grad[:, 0, 0]
    assert slopes[0].tolist() == pytest.approx([0.075, -0.425, 0.35], abs=1e-12)
    assert slopes[1].tolist() == pytest.approx([0.175, -0.325, 0.15], abs=1e-12)


def test_one_learner_is_c51() -> None:
    models = Models({"updates": 0.0}, policy=None, q=network([[0.1, 0.2, 0.7]]), q_target=network([[0.5, 0.3, 0.2]]))
    batch = table_transitions([0.5, 1.0], [False, True], noises=0).replace(action=torch.tensor([0, 0])).counted()
    one, other = (method(**GIVEN).loss(models, batch).value for method in (C51, EnsembleC51))
    assert torch.equal(one, other)
