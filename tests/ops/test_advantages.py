"""Group statistics: by hand, and what must not change them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from posttrain import ops

Groups = tuple[Tensor, Tensor]


@st.composite
def groups(draw: st.DrawFn) -> Groups:
    """Rewards of 1 to 12 rows in groups of any sizes and order: eighths, so that sums are exact."""
    rows = draw(st.lists(st.tuples(st.integers(-40, 40), st.integers(-3, 3)), min_size=1, max_size=12))
    reward = torch.tensor([r / 8 for r, _ in rows], dtype=torch.float64)
    return reward, torch.tensor([g for _, g in rows])


def test_by_hand() -> None:
    # Group 4: rewards 1, 2, 6: mean 3; deviations −2, −1, 3; variance (4 + 1 + 9) / 2 = 7.
    # Group 9: rewards 5, 7: mean 6; variance (1 + 1) / 1 = 2.   Group 1: the single 8.
    reward, group = torch.tensor([1.0, 5.0, 2.0, 8.0, 7.0, 6.0]), torch.tensor([4, 9, 4, 1, 9, 4])
    assert ops.group_mean(reward, group).tolist() == [3, 6, 3, 8, 6, 3]
    r7, r2 = math.sqrt(7), math.sqrt(2)
    assert_close(ops.group_std(reward, group), torch.tensor([r7, r2, r7, 0, r2, r7]))
    e = 0.5
    assert_close(ops.group_normalize(reward, group, e), torch.tensor(
        [-2 / (r7 + e), -1 / (r2 + e), -1 / (r7 + e), 0, 1 / (r2 + e), 3 / (r7 + e)]))
    assert ops.is_constant(reward, group).tolist() == [False, False, False, True, False, False]


def test_equal_rewards_give_exactly_zero() -> None:
    """The mean of ten times 0.1 is not 0.1 in fp32, so zero cannot be left to the subtraction."""
    reward, group = torch.full((10,), 0.1), torch.zeros(10, dtype=torch.long)
    assert (ops.group_normalize(reward, group) == 0).all()
    assert ops.is_constant(reward, group).all()


@given(groups())
def test_a_shift_changes_nothing(case: Groups) -> None:
    reward, group = case
    assert_close(ops.group_normalize(reward + 4, group), ops.group_normalize(reward, group))


@given(groups(), st.sampled_from([0.25, 3.0, 100.0]))
def test_scale_enters_only_through_epsilon(case: Groups, scale: float) -> None:
    reward, group = case
    assert_close(ops.group_normalize(scale * reward, group, scale * 1e-4), ops.group_normalize(reward, group, 1e-4))


@given(groups(), st.randoms(use_true_random=False))
def test_rows_may_come_in_any_order(case: Groups, random: object) -> None:
    reward, group = case
    order = list(range(len(reward)))
    random.shuffle(order)  # type: ignore[attr-defined]
    rows = torch.tensor(order)
    for function in (ops.group_mean, ops.group_std, ops.group_normalize):
        assert_close(function(reward[rows], group[rows]), function(reward, group)[rows])
    assert torch.equal(ops.is_constant(reward[rows], group[rows]), ops.is_constant(reward, group)[rows])


@given(groups())
def test_group_numbers_are_only_names(case: Groups) -> None:
    reward, group = case
    assert torch.equal(ops.group_normalize(reward, 1000 - 7 * group), ops.group_normalize(reward, group))


@given(groups())
def test_advantages_add_up_to_zero_in_every_group(case: Groups) -> None:
    reward, group = case
    advantage = ops.group_normalize(reward, group)
    assert_close(ops.group_mean(advantage, group), torch.zeros_like(reward), atol=1e-9, rtol=0)


@given(groups())
def test_each_group_is_as_if_alone(case: Groups) -> None:
    reward, group = case
    together = ops.group_normalize(reward, group)
    for g in group.unique():
        alone = ops.group_normalize(reward[group == g], group[group == g])
        assert_close(together[group == g], alone)


@given(groups())
def test_singletons_are_zero_and_constant(case: Groups) -> None:
    reward, _ = case
    own = torch.arange(len(reward))
    assert (ops.group_normalize(reward, own) == 0).all()
    assert (ops.group_std(reward, own) == 0).all()
    assert ops.is_constant(reward, own).all()
    assert torch.equal(ops.group_mean(reward, own), reward)


def test_refuses_other_shapes() -> None:
    with pytest.raises(AssertionError):
        ops.group_mean(torch.zeros(2, 2), torch.zeros(2, dtype=torch.long))


def test_shares_of_a_label_within_its_group() -> None:
    # Group 5 has labels 2, 2, 7; group 1 has label 2 alone; the twos of one do not count in the other.
    group, label = torch.tensor([5, 1, 5, 5, 1]), torch.tensor([2, 2, 7, 2, 2])
    found = ops.group_share(label, group)
    assert_close(found, torch.tensor([2 / 3, 1, 1 / 3, 2 / 3, 1], dtype=torch.float64))
    assert ops.group_size(group).tolist() == [3, 2, 3, 3, 2]


def test_groups_count_once_between_groups() -> None:
    # Values 1, 2 and 6 of groups with 3, 1 and 2 rows: mean 3, variance (4 + 1 + 9) / 2 = 7.
    x = torch.tensor([1, 6, 1, 2, 6, 1], dtype=torch.float64)
    mean, std = ops.between_groups(x, torch.tensor([0, 9, 0, 4, 9, 0]))
    assert float(mean) == pytest.approx(3, rel=1e-12)
    assert float(std) == pytest.approx(math.sqrt(7), rel=1e-12)
    assert float(ops.between_groups(x[:1], torch.tensor([0]))[1]) == 0
