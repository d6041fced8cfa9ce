"""GSPO-token's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import math

import pytest
import torch
from toy import table_groups
from worked import close, f64, learn

from posttrain.core import Groups, Models
from posttrain.methods.groups.gspo import GSPO
from posttrain.methods.groups.gspo_token import GSPOToken


class ByToken(GSPOToken):
    """Credit 1 and −1 to the two tokens of the only completion."""

    def prepare(self, models: Models, batch: Groups) -> Groups:
        return batch.replace(advantage=f64([[1, -1]]))


@pytest.mark.parametrize("spread", [1e-5, 1e-3])  # where nothing clips, and where much does
def test_with_one_advantage_a_completion_it_is_gspo(spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logp = spread * torch.randn(6, 5, generator=generator).double()
    mask = torch.rand(6, 5, generator=generator) < 0.7
    batch = table_groups([0, 1, 0.5, 0, 1, 1], mask, logp_old=torch.zeros(6, 5).double())
    one, other = learn(GSPO(), batch, logp), learn(GSPOToken(), batch, logp)
    close(other[0]["loss/policy"], one[0]["loss/policy"])
    close(other[0]["ratio"], one[0]["ratio"])
    close(other[2], one[2])
    assert (one[0]["clipped"] > 0) == (spread == 1e-3)


def test_tokens_may_be_credited_apart() -> None:
    # Log-ratios 0.5 and −0.5: s = 1, so L = −½ (1 − 1) = 0;  dL/dlog π = −½ s Â_t, whatever the tokens' own ratios.
    batch = table_groups([0], [[1, 1]], logp_old=f64([[0, 0]]))
    metrics, _, gradient = learn(ByToken(), batch, f64([[0.5, -0.5]]))
    close(metrics["loss/policy"], 0)
    close(gradient, [[-0.5, 0.5]])


def test_the_sequence_s_ratio_clips_each_token_by_its_own_sign() -> None:
    # s = exp(0.01) > 1.0004: the gain of the first token is clipped, that of the second is −s.
    # L = −½ (1.0004 − exp(0.01));  dL/dlog π = 0 and −½ s (−1).
    batch = table_groups([0], [[1, 1]], logp_old=f64([[0, 0]]))
    metrics, _, gradient = learn(ByToken(), batch, f64([[0.03, -0.01]]))
    close(metrics["loss/policy"], -0.5 * (1.0004 - math.exp(0.01)))
    close(metrics["clipped"], 0.5)
    close(gradient, [[0, 0.5 * math.exp(0.01)]])
