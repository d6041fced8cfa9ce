"""PPO's credit and both clipped losses, worked by hand, through the real loop; a TableCritic's values are free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from toy import Learner, TableCritic, TablePolicy, table_groups
from worked import close, f64, ln

from posttrain.core import Groups
from posttrain.methods.actor_critic.ppo import PPO


def learn(method: PPO, batch: Groups, logp: Tensor, value: Sequence[Any], logp_ref: Tensor | None = None,
          sizes: tuple[int, ...] = ()) -> tuple[dict[str, float], Groups, Tensor, Tensor]:
    """Metrics, the batch as prepared, dL / dlog π and dL / dV, [B, T] each, of one update."""
    learner = Learner(method, TablePolicy(logp, sizes), None if logp_ref is None else TablePolicy(logp_ref),
                      critic=TableCritic(f64(value)))
    prepared = learner.update(batch)
    policy, critic = learner.gradient.view(2, *logp.shape)
    return learner.metrics, prepared, policy, critic


def plain(**changes: Any) -> PPO:
    return PPO(**{"epochs": 1, "kl_coef": 0} | changes)


def test_without_critic_or_kl_it_is_reinforce_with_the_reward_to_go() -> None:
    # λ = γ = 1 and V = 0: every decision's advantage is its row's reward, 3 over one decision and −1 over three.
    # Normalised over decisions: mean 0, variance (9 + 3) / 3 = 4, so Â = 3/2 and −1/2; dL/dlog π = −Â / 4.
    # L_V = ½ mean (0 − R)², with dL/dV = −R / 4.
    batch = table_groups([3, -1], [[1, 0, 0], [1, 1, 1]])
    for sizes in ((), (1, 1)):
        metrics, _, policy, critic = learn(plain(decay=1), batch, f64([[-1, -1, -1]] * 2), [[0, 0, 0]] * 2, sizes=sizes)
        close(policy, f64([[-1.5, 0, 0], [0.5, 0.5, 0.5]]) * 2 / (2 + 1e-8) / 4)
        close(critic, f64([[-3, 0, 0], [1, 1, 1]]) / 4)
        close(metrics["loss/value"], (9 + 3) / 4 / 2)


def test_gae_and_value_targets_across_a_tool_s_answer() -> None:
    # Row 0 decides at 0, 2, 3 with V = 1, 2, 4, a tool speaks at 1 (V there is not read), r = 6 at the end, γ = λ = ½:
    #   δ_3 = 6 − 4 = 2,  δ_2 = ½ · 4 − 2 = 0,  δ_0 = ½ · 2 − 1 = 0
    #   G_3 = 2,  G_2 = 0 + ¼ · 2 = ½,  G_0 = 0 + ¼ · ½ = ⅛;     targets G + V = 6, 5/2, 9/8
    # Row 1 decides once, V = 1, r = 2: G = 1, target 2.  The four G have mean 29/32.
    batch = table_groups([6, 2], [[1, 0, 1, 1], [1, 0, 0, 0]])
    value = [[1, 99, 2, 4], [1, 99, 99, 99]]
    _, prepared, policy, critic = learn(plain(discount=0.5, decay=0.5), batch, f64([[-1] * 4] * 2), value)
    close(prepared.extra["value_target"], [[9 / 8, 0, 5 / 2, 6], [2, 0, 0, 0]])
    gain = f64([1 / 8, 1 / 2, 2, 1])
    advantage = (gain - 29 / 32) / (gain.std() + 1e-8)
    close(prepared.credit[batch.mask], advantage)
    close(policy[batch.mask], -advantage / 4)
    close(critic, f64([[-1 / 8, 0, -1 / 2, -2], [-1, 0, 0, 0]]) / 4)  # V − R = −G


def test_a_token_pays_for_its_own_drift_only() -> None:
    # log π − log π_ref = ln 2 and ln 4 around a tool's answer, β = 1, λ = γ = 1, V = 0, r = 0:
    # returns −3 ln 2 and −2 ln 2 are the value targets; the other row has no drift and r = 1.
    logp, ref = ln([[0.8, 0.9, 0.8], [0.5, 1, 1]]), ln([[0.4, 0.1, 0.2], [0.5, 1, 1]])
    batch = table_groups([0, 1], [[1, 0, 1], [1, 0, 0]])
    metrics, prepared, _, _ = learn(plain(decay=1, kl_coef=1), batch, logp, [[0, 0, 0]] * 2, ref)
    close(prepared.extra["value_target"], [[-3 * math.log(2), 0, -2 * math.log(2)], [1, 0, 0]])
    close(metrics["kl"], math.log(2))  # (1 + 2 + 0) ln 2 / 3


def test_clips_the_ratio_and_the_value() -> None:
    # Rewards 1 and −1 on two decisions each, λ = γ = 1: Â = ±1 / √(4/3).  The sampler is another: ratios ½ and 3/2.
    #   Â > 0: ½ open, 3/2 clipped at 6/5;   Â < 0: ½ clipped at 4/5, 3/2 open
    batch = table_groups([1, -1], [[1, 1]] * 2, logp_old=f64([[0, 0]] * 2))
    metrics, _, policy, _ = learn(plain(decay=1), batch, ln([[0.5, 1.5]] * 2), [[0, 0]] * 2)
    a = 1 / (math.sqrt(4 / 3) + 1e-8)
    close(metrics["loss/policy"], -(0.5 + 1.2 - 0.8 - 1.5) / 4 * a)
    close(metrics["clipped"], 0.5)
    close(policy, f64([[-0.5, 0], [0, 1.5]]) * a / 4)


def test_a_value_that_has_left_the_range_is_pulled_only_back() -> None:
    # V_old = 0, range ±1/5.  Four values, targets (1, 1, −1, 0.1) and V now (0.5, 0.1, 0.5, 0.15):
    #   0.5 → 1: max(0.25, 0.64), clipped, no gradient;  0.1 → 1: 0.81, in range;
    #   0.5 → −1: max(2.25, 1.44), open;  0.15 → 0.1: 0.0025, in range.
    method = plain()
    critic = TableCritic(f64([[0.5, 0.1, 0.5, 0.15]]))
    learner = Learner(method, TablePolicy(f64([[-1.0] * 4])), critic=critic)
    batch = table_groups([0], [[1] * 4]).replace(advantage=torch.zeros(1, 4, dtype=torch.float64)).with_extra(
        value_old=f64([[0.0] * 4]), value_target=f64([[1, 1, -1, 0.1]])).counted()
    loss = method.loss(learner.models, batch)
    loss.value.backward()
    close(loss.terms["value"].value.detach(), (0.64 + 0.81 + 2.25 + 0.0025) / 4 / 2)
    assert critic.table.grad is not None
    close(critic.table.grad, f64([[0, 0.1 - 1, 0.5 + 1, 0.05]]) / 4)


def test_a_critic_learns_what_states_are_worth_at_its_own_rate() -> None:
    # Adam's first step is the learning rate in the gradient's direction, whatever its size: 1e-2 and 3e-2.
    critic = TableCritic(f64([[0.0], [0.0]]))
    learner = Learner(plain(critic_scale=3), TablePolicy(f64([[-1.0], [-1.0]])), critic=critic)
    before = learner.weights.clone()
    learner.update(table_groups([1, -1], [[1]] * 2))
    torch.testing.assert_close(learner.weights - before, f64([1e-2, -1e-2, 3e-2, -3e-2]), rtol=1e-6, atol=0)
