"""Guidance by hand; in one dimension, where all is normal, what the guided sampler comes to in closed form."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from control_toy import ControlLearner, toy_transitions
from worked import close, f64

from posttrain.core import Models
from posttrain.data.dataset import Dataset
from posttrain.data.steps import Spaces
from posttrain.methods.offline.policy_guided_diffusion import PolicyGuidedDiffusion
from posttrain.methods.offline.td3_bc import TD3BC
from posttrain.policies.stretches import StretchModel, noise_levels

SPACES, PASSES, MEAN, STD = Spaces(1, 1, False), 12, 0.25, 0.5


class Constant:
    """π(s) is the same number everywhere."""

    def __init__(self, action: float) -> None:
        self.action = action

    def mode(self, obs: torch.Tensor) -> torch.Tensor:
        return torch.full((len(obs), 1), self.action, dtype=obs.dtype)


def test_guidance_by_hand() -> None:
    # N = 4, c = 2, κ = 0.5: λ_0 = 2 (1 + 0.5 sin 45°), λ_1 = 2 (0.75 + 0.5), λ_2 = 2 (0.5 + 0.5 sin 135°), λ_3 = 0.
    # From actions 0 and 1 to π = 3: λ (3, 2), or with unit length λ (3, 2) / √13.
    action, half = f64([[[0.0], [1.0]]]), math.sqrt(0.5)
    for unit, size in ((False, 1.0), (True, math.sqrt(13))):
        method = PolicyGuidedDiffusion(guidance=2.0, bend=0.5, unit_length=unit)
        for taken, strength in enumerate((2 + half, 2.5, 1 + half, 0.0)):
            found = method.guide(Models(policy=Constant(3.0)), torch.zeros(1, 2, 5), action, taken, 4)
            assert torch.allclose(found, strength * f64([[[3.0], [2.0]]]) / size, rtol=0, atol=1e-7)


def model() -> StretchModel:
    """Of stretches of 2 steps whose numbers are all N(0, 1) in units: D(x, σ) = x / (σ² + 1), of a net that says 0.

    Actions are N(¼, ½²).
    """
    made = StretchModel(SPACES, 2, 4, torch.Generator().manual_seed(0))
    column = torch.tensor([[-1.0], [1.0]])
    made.observe(Dataset(SPACES, obs=column, action=MEAN + STD * column, reward=column[:, 0], next_obs=column,
                         terminated=torch.tensor([False, True]), episode=torch.tensor([0, 0])))
    return made.double()


def sampled(c: float | None, towards: float) -> torch.Tensor:
    """Actions [3, 2] in their own unit, not cut off."""
    method, models = PolicyGuidedDiffusion(guidance=c or 0.0), Models(policy=Constant(towards))
    guide = None if c is None else lambda obs, action, taken: method.guide(models, obs, action, taken, PASSES)
    x = model().sample(3, PASSES, torch.Generator().manual_seed(1), guide)
    return MEAN + STD * x[:, [1, 5]]  # of obs, action, reward, ending, then again, and what is seen last


def pulled(c: float) -> float:
    """k of a = (what it would be if π(s) were the mean of the data) + k (π(s) − that mean).

    All passes are affine.  Guidance takes the rest r = 1 − k to (1 − λ_i std²) r; of Heun's step from σ̂, to which fresh
    noise has brought it, to σ', with g(σ) = σ / (σ² + 1), r becomes r (1 + (σ' − σ̂) g(σ̂)) in the first order and
    r (1 + (σ' − σ̂) (g(σ̂) + (1 + (σ' − σ̂) g(σ̂)) g(σ')) / 2) in the second.  Both keep what is at π(s) apart by its own
    factor f, so k ← f (k + λ_i std² (1 − k)).
    """
    k = 0.0
    for i, (now, then) in enumerate(pairwise(noise_levels(PASSES, torch.float64).tolist())):
        strength = 0.0 if i == PASSES - 1 else c * (1 - i / PASSES + 0.3 * math.sin(math.pi * (i + 1) / PASSES))
        k += strength * STD**2 * (1 - k)
        grown = now * (math.sqrt(2) if 0.05 <= now <= 50 else 1)  # 80 / 12 is more than √2 − 1
        first = 1 + (then - grown) * grown / (grown**2 + 1)
        k *= 1 + (then - grown) * (grown / (grown**2 + 1) + first * then / (then**2 + 1)) / 2 if then else first
    return k


def test_without_guidance_it_is_the_unguided_sampler() -> None:
    assert torch.equal(sampled(0.0, 3.0), sampled(None, 0.0))


@pytest.mark.parametrize("c", [0.1, 1.0, 2.0])
def test_normal_stretches_are_drawn_to_the_policy_as_far_as_worked_out(c: float) -> None:
    # The same noise with π(s) at the mean of the data and elsewhere: what differs is k (π(s) − mean), exactly.
    k = pulled(c)
    assert 0 < k < 1  # between the two
    for towards in (0.9, -2.0):
        shift = sampled(c, towards) - sampled(c, MEAN)
        close(shift, torch.full_like(shift, k * (towards - MEAN)))


def test_more_guidance_draws_further() -> None:
    assert 0 == pulled(0.0) < pulled(0.1) < pulled(1.0) < pulled(2.0)
    # Unguided, and in passes enough for steps of that width, samples are the data's: N(0, 1) in units, here 9000.
    found = model().sample(1000, 64, torch.Generator().manual_seed(1))
    assert abs(float(found.mean())) < 0.03 and abs(float(found.std()) - 1) < 0.04


def test_what_is_learnt_from_a_batch_is_as_in_td3_bc() -> None:
    weights = []
    for method in (PolicyGuidedDiffusion(guidance=5.0), TD3BC()):
        learner = ControlLearner(method)
        for step in range(2):
            learner.update(toy_transitions(learner.setting.spaces, step, method.noises), step)
        weights.append(learner.weights)
    assert torch.equal(*weights)
