"""Acting that fills a replay."""

from __future__ import annotations

import torch

from posttrain.rollout.replayed import Drift


def test_noise_keeps_a_share_of_itself_within_an_episode() -> None:
    """ρ = 0.6, so √(1 − ρ²) = 0.8: from ε = (1, 2) it is (0.8, 1.6); then from (3, 4)

    0.6 · 0.8 + 0.8 · 3 = 2.88 and, where the episode was over, 0.8 · 4 = 3.2.
    """
    drift = Drift(0.6)
    torch.testing.assert_close(drift.next(torch.tensor([[1.0], [2.0]])), torch.tensor([[0.8], [1.6]]))
    drift.forget(torch.tensor([False, True]))
    torch.testing.assert_close(drift.next(torch.tensor([[3.0], [4.0]])), torch.tensor([[2.88], [3.2]]))


def test_it_stays_of_deviation_1_and_new_where_nothing_is_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    fresh, drift = torch.randn(300, 300, 4, generator=generator), Drift(0.9)
    kept = torch.stack([drift.next(x) for x in fresh])[50:]
    assert abs(float(kept.std()) - 1) < 0.02
    assert abs(float((kept[1:] * kept[:-1]).mean()) - 0.9) < 0.03
    assert torch.equal(Drift(0.0).next(fresh[0]), fresh[0])
