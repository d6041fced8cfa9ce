"""The sum tree against a plain sum, shares of what is drawn, weights by hand, and what a checkpoint keeps."""

from __future__ import annotations

import pytest
import torch

from posttrain.data.replay.prioritized import PrioritizedReplay, SumTree
from posttrain.data.steps import Spaces


def test_tree_finds_what_a_plain_sum_finds() -> None:
    generator = torch.Generator().manual_seed(0)
    tree, values = SumTree(13), torch.rand(13, dtype=torch.float64, generator=generator)
    values[4] = 0.0
    tree.set(torch.arange(13), values)
    assert tree.total == pytest.approx(float(values.sum()))
    mass = tree.total * torch.rand(200, dtype=torch.float64, generator=generator)
    assert torch.equal(tree.find(mass), torch.searchsorted(values.cumsum(0), mass, right=True))


def test_tree_changes_in_place_and_the_last_of_several_counts() -> None:
    tree = SumTree(5)
    tree.set(torch.tensor([0, 3, 3]), torch.tensor([1.0, 9.0, 2.0]))
    assert tree.total == 3.0
    tree.set(torch.tensor([0]), torch.tensor([4.0]))
    assert tree.leaves.tolist() == [4, 0, 0, 2, 0, 0, 0, 0]
    assert tree.find(torch.tensor([0.0, 3.9, 4.0, 6.0], dtype=torch.float64)).tolist() == [0, 0, 3, 3]


def replay(rows: int = 4, **options: float) -> PrioritizedReplay:
    given = {"capacity": 8, "stride": 1, "span": 1, "discount": 1.0, "priority": 0.5, "correction": 0.5, "rounds": 4}
    made = PrioritizedReplay(Spaces(1, 2, True), **{**given, **options})  # type: ignore[arg-type]
    made.add(obs=torch.arange(rows)[:, None], action=torch.zeros(rows), reward=torch.zeros(rows),
             next_obs=torch.zeros(rows, 1), terminated=torch.zeros(rows))
    return made


def surprised(made: PrioritizedReplay) -> PrioritizedReplay:
    """p^½ = 1, 2, 3, 4 (|δ| = 1, 4, 9, 16): shares 0.1, 0.2, 0.3, 0.4."""
    made.learnt({"place": torch.arange(4), "surprise": torch.tensor([1.0, 4.0, 9.0, 16.0])})
    return made


def test_shares_and_weights_by_hand() -> None:
    # β = ½: w = (4 P)^−½, and the greatest is of the least likely drawn, P = 0.1: w / max = (P / 0.1)^−½
    # = 1, 1/√2, 1/√3, ½.  Ten equal parts hold 1, 2, 3 and 4 of them.
    drawn = surprised(replay()).draw(1000, 0, torch.Generator().manual_seed(0))
    place, weight = drawn.extra["place"], drawn.extra["importance"]
    assert place.bincount().tolist() == pytest.approx([100, 200, 300, 400], abs=1)
    for i, expected in enumerate([1, 2**-0.5, 3**-0.5, 0.5]):
        assert weight[place == i].unique().tolist() == pytest.approx([expected], rel=1e-5)
    assert torch.equal(drawn.obs[:, 0].long(), place)
    assert torch.equal(drawn.importance, weight)


def test_the_correction_rises_to_one() -> None:
    # β = ½, ⅝, ¾, ⅞, 1, 1: the likeliest one's weight is 4^−β.
    made, generator = surprised(replay()), torch.Generator().manual_seed(0)
    found = [float(made.draw(100, 0, generator).importance.min()) for _ in range(6)]
    assert found == pytest.approx([4**-b for b in (0.5, 0.625, 0.75, 0.875, 1, 1)], rel=1e-4)


def test_what_is_new_has_the_highest_priority_so_far() -> None:
    made = surprised(replay())
    made.add(obs=torch.zeros(1, 1), action=torch.zeros(1), reward=torch.zeros(1), next_obs=torch.zeros(1, 1),
             terminated=torch.zeros(1))
    assert made.tree.leaves[:5].tolist() == pytest.approx([1, 2, 3, 4, 4], rel=1e-5)


def test_without_priority_all_are_alike() -> None:
    drawn = surprised(replay(priority=0.0)).draw(8, 0, torch.Generator().manual_seed(0))
    assert drawn.importance.tolist() == pytest.approx([1.0] * 8)
    assert drawn.extra["place"].bincount().tolist() == [2, 2, 2, 2]


def test_a_checkpoint_keeps_all_that_decides_the_next_draw() -> None:
    one = surprised(replay())
    one.draw(3, 0, torch.Generator().manual_seed(1))
    other = replay()
    other.load(one.tensors())
    mine, theirs = (r.draw(50, 2, torch.Generator().manual_seed(2)) for r in (one, other))
    assert torch.equal(mine.extra["place"], theirs.extra["place"])
    assert torch.equal(mine.importance, theirs.importance)
    assert torch.equal(mine.noise, theirs.noise)
    assert one.highest == other.highest
