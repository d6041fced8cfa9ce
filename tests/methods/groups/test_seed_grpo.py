"""SEED-GRPO: the factor that semantic entropy puts on the advantages of a prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch.testing import assert_close
from toy import Learner, TablePolicy, table_groups

from posttrain.methods.groups.seed_grpo import SeedGRPO


def credit(alpha: float, reward: Sequence[float], answer: Sequence[int], group: Sequence[int] | None = None
           ) -> list[float]:
    batch = table_groups(reward, [[1]] * len(reward), group=group, answer=answer)
    learner = Learner(SeedGRPO(sensitivity=alpha), TablePolicy(torch.zeros(len(reward), 1).double()))
    column: list[float] = learner.update(batch).credit[:, 0].tolist()
    return column


def close(found: list[float], expected: list[float]) -> None:
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_entropy_is_a_mean_over_answers() -> None:
    # Four completions, answers 0, 0, 1, 2: shares ½, ¼, ¼.  SE = (log 2 + log 4 + log 4) / 3 = 5/3 log 2, and
    # log G = 2 log 2, so SE / log G = 5/6.  α = 0.6: factor ½.  Rewards 1, 1, 0, 0 are ±½ about their mean.
    close(credit(0.6, [1, 1, 0, 0], [0, 0, 1, 2]), [0.25, 0.25, -0.25, -0.25])


def test_unanimous_and_scattered() -> None:
    # Group 5: one answer, SE = 0, factor 1.  Group 2: three answers of three, SE = log 3, factor 1 − α = 0.7.
    # Means: (0 + 1) / 2 = ½ and (0 + 0 + 3) / 3 = 1.
    found = credit(0.3, [0, 0, 1, 0, 3], [4, 0, 4, 1, 2], group=[5, 2, 5, 2, 2])
    close(found, [-0.5, -0.7, 0.5, -0.7, 1.4])


def test_without_sensitivity_it_is_the_centred_reward() -> None:
    close(credit(0.0, [0, 1, 2, 5], [0, 1, 2, 3]), [-2, -1, 0, 3])


def test_a_group_of_one_has_no_entropy() -> None:
    close(credit(1.0, [1, 0, 1], [0, 0, 0], group=[0, 1, 1]), [0, -0.5, 0.5])


def test_gradient_and_clipping() -> None:
    # Two rows, two answers: SE = log 2 = log G, α = 0.5: Â = ∓½ · ½ = ∓¼.
    # Row 0, Â < 0: ratio 1.5 is outside [0.8, 1.2] but not clipped on this side.  dL/dlog π = −½ ρ Â / |y|.
    # Row 1, Â > 0, two tokens: ratio 1.5 is clipped to 1.2, the other is 1.
    logp = torch.tensor([[math.log(1.5), 0.0], [math.log(1.5), 0.0]], dtype=torch.float64)
    batch = table_groups([0, 1], [[1, 0], [1, 1]], logp_old=torch.zeros_like(logp))
    learner = Learner(SeedGRPO(sensitivity=0.5), TablePolicy(logp))
    learner.update(batch)
    expected = torch.tensor([0.5 * 1.5 * 0.25, 0, 0, -0.5 * 0.25 / 2], dtype=torch.float64)
    assert_close(learner.gradient, expected, rtol=1e-10, atol=1e-12)
    assert_close(learner.metrics["loss/policy"], 0.5 * (1.5 * 0.25 - (1.2 + 1) / 2 * 0.25))
