"""The clipped surrogate, by hand and by its properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from posttrain import ops


def test_by_hand() -> None:
    # Range [0.8, 1.3].  Â = 2: 0.5 → min(1, 1.6) = 1;  1 → 2;  1.5 → min(3, 2.6) = 2.6, clipped.
    # Â = −2: 0.5 → min(−1, −1.6) = −1.6, clipped;  1 → −2;  1.5 → min(−3, −2.6) = −3.
    ratio = torch.tensor([0.5, 1.0, 1.5]).repeat(2)
    advantage = torch.tensor([2.0, -2.0]).repeat_interleave(3)
    gain, clipped = ops.clipped_gain(ratio, advantage, 0.2, 0.3)
    assert_close(gain, torch.tensor([1, 2, 2.6, -1.6, -2, -3]))
    assert clipped.tolist() == [0, 0, 1, 1, 0, 0]


@given(st.floats(0, 5), st.floats(-3, 3), st.floats(0, 1), st.floats(0, 1))
def test_never_above_the_plain_gain(r: float, a: float, low: float, high: float) -> None:
    ratio, advantage = torch.tensor([[r, 1.0], [a, a]], dtype=torch.float64)
    gain, clipped = ops.clipped_gain(ratio, advantage, low, high)
    assert (gain <= ratio * advantage).all()
    assert gain[1] == a  # at ratio 1 nothing is clipped
    assert clipped[1] == 0
    assert clipped[0] == float(gain[0] < r * a)


def test_no_gradient_where_clipped() -> None:
    ratio = torch.tensor([0.5, 1.5, 0.5, 1.5], requires_grad=True)
    gain, clipped = ops.clipped_gain(ratio, torch.tensor([3.0, 3.0, -3.0, -3.0]), 0.2, 0.2)
    gain.sum().backward()
    assert ratio.grad is not None
    assert ratio.grad.tolist() == [3, 0, 0, -3]
    assert clipped.tolist() == [0, 1, 1, 0]


def test_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(AssertionError):
        ops.clipped_gain(torch.ones(3, 2), torch.ones(3), 0.2, 0.2)
