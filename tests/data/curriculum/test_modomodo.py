"""MoDoMoDo: the fit, its maximum, and seed runs read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from posttrain.core import Arm
from posttrain.core.errors import UserError
from posttrain.data.curriculum.modomodo import MoDoMoDo, best, fit

ARMS = [Arm("a"), Arm("b"), Arm("c")]


def simplex(points: int, parts: int) -> torch.Tensor:
    return torch.distributions.Dirichlet(torch.ones(parts).double()).sample((points,))


def test_a_quadratic_is_found_again() -> None:
    """Any a + b w + w C w is one w C' w on the simplex, so the prediction agrees at mixtures that were not run."""
    torch.manual_seed(0)
    a, b, c = 0.3, torch.randn(3).double(), torch.randn(3, 3).double()

    def score(w: torch.Tensor) -> torch.Tensor:
        return a + w @ b + ((w @ c) * w).sum(1)

    seeds, others = simplex(6, 3), simplex(20, 3)
    found = fit(seeds, score(seeds))
    torch.testing.assert_close(((others @ found) * others).sum(1), score(others), atol=1e-9, rtol=0)
    assert torch.equal(found, found.T)


def test_the_maximum_is_inside_or_on_an_edge() -> None:
    # −(w_a − ¼)² − (w_b − ½)² − (w_c − ¼)² peaks inside; w_a w_b at ½, ½; w_a alone at the corner.
    centre, ones = torch.tensor([0.25, 0.5, 0.25]).double(), torch.ones(3).double()
    peak = -(torch.eye(3).double() - torch.outer(centre, ones) - torch.outer(ones, centre) + centre @ centre)
    torch.testing.assert_close(best(peak), centre)
    product = torch.zeros(3, 3).double()
    product[0, 1] = product[1, 0] = 0.5
    torch.testing.assert_close(best(product), torch.tensor([0.5, 0.5, 0]).double())
    squares = torch.diag(torch.tensor([1.0, 0.5, 0]).double())
    torch.testing.assert_close(best(squares), torch.tensor([1.0, 0, 0]).double())


def test_no_other_mixture_is_predicted_to_be_better() -> None:
    torch.manual_seed(1)
    for _ in range(30):
        c = torch.randn(4, 4).double()
        c = c + c.T
        found, others = best(c), simplex(2000, 4)
        assert (found >= 0).all()
        assert float(found.sum()) == pytest.approx(1)
        assert float(found @ c @ found) >= float(((others @ c) * others).sum(1).max()) - 1e-9


def seed_run(folder: Path, weights: str, score: float, curriculum: str = "modomodo") -> str:
    folder.mkdir()
    hyperparameters = {"part_weights": weights, "seed_runs": ""} if curriculum else {}
    (folder / "config.json").write_text(json.dumps({
        "config": {"curriculum": curriculum}, "curriculum": hyperparameters, "parts": ["a", "b", "c"]}))
    (folder / "summary.json").write_text(json.dumps({"measure": "accuracy", "after": {"accuracy": score}}))
    return str(folder)


def test_the_best_mixture_of_seed_runs(tmp_path: Path) -> None:
    # Scores of 1 − (w_a − ½)² − (w_b − ½)² − w_c²: its maximum on the simplex is ½, ½, 0.
    runs = []
    for i, w in enumerate(((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))):
        a, b, c = (x / sum(w) for x in w)
        plain = sum(w) == 3  # a run without a curriculum takes the parts in turn
        runs.append(seed_run(tmp_path / str(i), "" if plain else ",".join(map(str, w)),
                             1 - (a - 0.5) ** 2 - (b - 0.5) ** 2 - c**2, "" if plain else "modomodo"))
    curriculum = MoDoMoDo(seed_runs=", ".join(runs))
    state = json.loads(json.dumps(curriculum.initial_state(ARMS)))
    assert curriculum.probabilities(state, ARMS) == pytest.approx([0.5, 0.5, 0], abs=1e-9)


def test_mixtures_as_told() -> None:
    assert MoDoMoDo().initial_state(ARMS) == {"weights": [1 / 3] * 3}
    assert MoDoMoDo(part_weights="2, 1,1").initial_state(ARMS) == {"weights": [0.5, 0.25, 0.25]}


@pytest.mark.parametrize("text", ["1,2", "1,2,x", "0,0,0", "1,2,-1", "1,2,inf", "nan,1,1"])
def test_wrong_weights(text: str) -> None:
    with pytest.raises(UserError, match=r"part_weights = .*: must be 3 numbers ≥ 0 between commas, not all 0"):
        MoDoMoDo(part_weights=text).initial_state(ARMS)


def test_wrong_seed_runs(tmp_path: Path) -> None:
    one = seed_run(tmp_path / "one", "1,0,0", 0.5)
    with pytest.raises(UserError, match="seed_runs: 2 runs, and a quadratic of 3 parts needs 6"):
        MoDoMoDo(seed_runs=f"{one},{one}").initial_state(ARMS)
    with pytest.raises(UserError, match="no finished run"):
        MoDoMoDo(seed_runs=str(tmp_path)).initial_state(ARMS)
    with pytest.raises(UserError, match="trained on other parts, or by another curriculum"):
        MoDoMoDo(seed_runs=one).initial_state(ARMS[:2])
    with pytest.raises(UserError, match="seed_runs decide the mixture; give one of the two"):
        MoDoMoDo(seed_runs=one, part_weights="1,1,1").initial_state(ARMS)
