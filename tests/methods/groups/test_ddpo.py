"""DDPO's closed forms, worked by hand, through the real loop."""

from __future__ import annotations

import torch
from picture_toy import PictureLearner, toy_pictures, toy_policy
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.ddpo import DDPO
from posttrain.methods.groups.reinforce import Reinforce


def test_clips_each_step_and_averages_over_all() -> None:
    # Rewards 0 and 2: mean 1, population deviation 1, Â = ∓a with a = 1/(1 + 1e-6).  Ratios ½ and 1½, range [0.8, 1.2]:
    # L = −¼ a (−0.8 − 1.5 + 0.5 + 1.2) = 0.15 a;   dL/dlog π = −¼ ρ Â where not clipped.
    batch = table_groups([0, 2], [[1, 1], [1, 1]], logp_old=f64([[0, 0]] * 2))
    metrics, _, gradient = learn(DDPO(clip_low=0.2, clip_high=0.2), batch, ln([[0.5, 1.5]] * 2))
    a = 1 / (1 + 1e-6)
    close(metrics["loss/policy"], 0.15 * a)
    close(gradient, [[0, 0.375 * a], [-0.125 * a, 0]])


def test_advantages_are_bounded() -> None:
    _, prepared, _ = learn(DDPO(max_advantage=0.5), table_groups([0, 2], [[1]] * 2), f64([[0]] * 2))
    close(prepared.credit[:, 0], [-0.5, 0.5])


def test_one_update_is_reinforce_on_normalised_rewards() -> None:
    """DDPO_SF, on a real denoiser: the same direction, Σ_t there and the mean over steps here."""
    batch = toy_pictures()
    ours, plain = (PictureLearner(method, toy_policy()) for method in (DDPO(), Reinforce()))
    prepared = ours.update(batch)
    plain.update(batch.replace(reward=prepared.credit[:, 0]))
    steps = int(batch.mask[0].sum())
    assert torch.allclose(ours.gradient * steps, plain.gradient, rtol=1e-10, atol=1e-14)
    assert float(ours.gradient.norm()) > 0


def test_equal_rewards_teach_nothing() -> None:
    _, prepared, gradient = learn(DDPO(), table_groups([0.3] * 3, [[1]] * 3), f64([[0]] * 3))
    assert prepared.credit.tolist() == [[0.0]] * 3
    assert not gradient.any()
