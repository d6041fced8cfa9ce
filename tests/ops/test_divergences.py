"""k3, by hand and against the divergence that it estimates."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from posttrain import ops


def test_by_hand() -> None:
    # x = 0: 1 − 1 + 0 = 0.   x = log 2: 1/2 − 1 + log 2.   x = −log 2: 2 − 1 − log 2.
    x = torch.tensor([0.0, math.log(2), -math.log(2)], dtype=torch.float64)
    expected = torch.tensor([0.0, math.log(2) - 0.5, 1 - math.log(2)], dtype=torch.float64)
    assert_close(ops.k3(x), expected)


def test_small_ratios_keep_their_digits() -> None:
    """k3 = x²/2 − x³/6 + …; exp(−x) alone would round it to one digit in fp32."""
    x = torch.tensor([1e-3, -1e-3])
    assert_close(ops.k3(x), torch.tensor([0.5e-6 - 1e-9 / 6, 0.5e-6 + 1e-9 / 6]), rtol=1e-3, atol=0)


@given(st.floats(-30, 30))
def test_never_negative(x: float) -> None:
    assert ops.k3(torch.tensor(x, dtype=torch.float64)) >= 0


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6), st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_its_mean_under_the_policy_is_the_divergence(a: list[float], b: list[float]) -> None:
    logp = torch.tensor(a, dtype=torch.float64).log_softmax(0)
    ref = torch.tensor(b[: len(a)], dtype=torch.float64).log_softmax(0)
    divergence = (logp.exp() * (logp - ref)).sum()
    assert_close((logp.exp() * ops.k3(logp - ref)).sum(), divergence, atol=1e-12, rtol=1e-9)
