"""PPO-max's history of rewards, and what it makes of them."""

from __future__ import annotations

import math

import pytest
import torch
from toy import Learner, TableCritic, TablePolicy, table_groups
from worked import close, f64

from posttrain.core import Groups
from posttrain.methods.actor_critic.ppo import PPO
from posttrain.methods.actor_critic.ppo_max import PPOMax, remember, spread


def prepared(method: PPO, *batches: Groups) -> Groups:
    """The last of these batches as prepared, under a critic that says 1/4."""
    rows = len(batches[0])
    learner = Learner(method, TablePolicy(torch.full((rows, 2), -1.0, dtype=torch.float64)),
                      critic=TableCritic(torch.full((rows, 2), 0.25, dtype=torch.float64)))
    return [learner.update(batch, lr=1e-30) for batch in batches][-1]  # the critic stays where it is


def test_history_is_that_of_all_rewards_at_once() -> None:
    everything = f64([1e6 + x for x in (3, 1, 4, 1, 5, 9, 2, 6)])
    state = PPOMax().initial_state()
    for part in everything.split([1, 4, 3]):
        remember(state, part)
    assert state["reward_mean"] == pytest.approx(float(everything.mean()), rel=1e-14)
    assert spread(state) == pytest.approx(float(everything.std()), rel=1e-9)


def test_scales_by_the_history_and_clips() -> None:
    # First batch 0, 2: m = 1, s = √2.  Second 0, 6, so the history 0, 2, 0, 6 has m = 2 and s = √(24 / 3) = √8:
    # scaled −1/√2 and √2, the latter clipped at δ = 1.  γ = λ = 1 and V = 1/4 throughout: targets are the scaled
    # rewards, advantages those less 1/4, without any normalisation.
    method = PPOMax(epochs=1, kl_coef=0, decay=1, reward_clip=1)
    mask = [[1, 1], [1, 0]]
    batch = prepared(method, table_groups([0, 2], mask), table_groups([0, 6], mask))
    low = -2 / (math.sqrt(8) + 1e-8)
    close(batch.extra["value_target"], [[low, low], [1, 0]])
    close(batch.credit, [[low - 0.25, low - 0.25], [0.75, 0]])
    assert batch.reward.tolist() == [0, 6]


def test_on_scaled_rewards_it_is_ppo_before_its_normalisation() -> None:
    # Rewards of mean 0 and standard deviation 1 are left as they are.
    batch = table_groups([-math.sqrt(0.5), math.sqrt(0.5)], [[1, 1], [1, 0]])
    ours = prepared(PPOMax(kl_coef=0, epochs=1), batch)
    theirs = prepared(PPO(kl_coef=0, epochs=1), batch)
    torch.testing.assert_close(ours.extra["value_target"], theirs.extra["value_target"], rtol=1e-7, atol=0)
    own = ours.credit[batch.mask]
    torch.testing.assert_close((own - own.mean()) / own.std(), theirs.credit[batch.mask], rtol=1e-6, atol=0)


def test_equal_rewards_are_scaled_to_nothing() -> None:
    batch = prepared(PPOMax(kl_coef=0, epochs=1), table_groups([0.1] * 3, [[1, 1]] * 3))
    assert batch.extra["value_target"].abs().max() < 0.25  # V = 1/4 decayed by λ, and no reward
