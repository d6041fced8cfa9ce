"""Weights for a sampler that is not the policy, by hand."""

from __future__ import annotations

import math

import torch
from torch.testing import assert_close

from posttrain import ops

RATIOS = [0.25, 0.5, 1.0, 1.5, 2.0, 4.0]
LOG_RATIO = torch.tensor([math.log(r) for r in RATIOS], dtype=torch.float64)


def test_truncated_weight_is_the_ratio_up_to_its_limit() -> None:
    expected = torch.tensor([0.25, 0.5, 1.0, 1.5, 1.75, 1.75], dtype=torch.float64)
    assert_close(ops.truncated_weight(LOG_RATIO, 1.75), expected)
    assert_close(ops.truncated_weight(torch.tensor([100.0, 1e4]), 2.0), torch.tensor([2.0, 2.0]))  # e^10000 is ∞


def test_masked_weight_is_the_ratio_inside_its_bounds() -> None:
    # 1/3 ≤ r ≤ 3 leaves 0.25 and 4 out.
    expected = torch.tensor([0, 0.5, 1.0, 1.5, 2.0, 0], dtype=torch.float64)
    assert_close(ops.masked_weight(LOG_RATIO, 3.0), expected)
    assert_close(ops.masked_weight(torch.tensor([1e4, -1e4]), 3.0), torch.zeros(2))
