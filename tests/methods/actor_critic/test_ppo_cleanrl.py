"""PPO on control against a transcription of the formulas of CleanRL's ppo_continuous_action.py, time by environment.

There everything is an array [T, N] with flags for what ended; here a row is a stretch of one episode.  Minibatches are
one, since CleanRL normalises advantages within each; its weight of the value's loss is outside both losses.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from toy import TableCritic, TablePolicy, table_groups
from worked import close

from posttrain.core import Batch, Groups, Models
from posttrain.methods.actor_critic.ppo import PPO

T, N = 12, 3
GAMMA, LAMBDA, CLIP = 0.99, 0.95, 0.2


class Rollout(NamedTuple):
    """[T, N] each; `next_value` [N]."""

    reward: Tensor
    ended: Tensor  # bool: the step ended the episode
    logp_old: Tensor
    logp: Tensor
    value_old: Tensor
    value: Tensor
    next_value: Tensor


def rollout(seed: int) -> Rollout:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    old, value_old = -draw(T, N).abs(), draw(T, N)
    return Rollout(draw(T, N), torch.rand(T, N, generator=generator) < 0.2, old, old + 0.3 * draw(T, N), value_old,
                   value_old + 0.3 * draw(T, N), draw(N))


def transcribed(x: Rollout) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Policy loss, value loss, and their gradients by log π and V, [T, N]."""
    advantages, last = torch.zeros(T, N, dtype=torch.float64), torch.zeros(N, dtype=torch.float64)
    for t in range(T - 1, -1, -1):
        nonterminal = 1.0 - x.ended[t].double()
        following = x.next_value if t == T - 1 else x.value_old[t + 1]
        delta = x.reward[t] + GAMMA * following * nonterminal - x.value_old[t]
        last = delta + GAMMA * LAMBDA * nonterminal * last
        advantages[t] = last
    returns = advantages + x.value_old
    logp, value = x.logp.clone().requires_grad_(), x.value.clone().requires_grad_()
    ratio = (logp - x.logp_old).exp()
    normal = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    policy = torch.max(-normal * ratio, -normal * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
    near = x.value_old + (value - x.value_old).clamp(-CLIP, CLIP)
    worth = 0.5 * torch.max((value - returns) ** 2, (near - returns) ** 2).mean()
    (policy + worth).backward()
    assert logp.grad is not None and value.grad is not None
    return policy.detach(), worth.detach(), logp.grad, value.grad


class Stretches:
    """Which (environment, first step, step after the last) each row is."""

    def __init__(self, ended: Tensor) -> None:
        self.rows: list[tuple[int, int, int]] = []
        for n in range(N):
            ends = [*(t + 1 for t in range(T) if ended[t, n]), T]
            self.rows += [(n, a, b) for a, b in zip([0, *ends], ends, strict=False) if a < b]

    def table(self, x: Tensor) -> Tensor:
        out = torch.zeros(len(self.rows), T, dtype=torch.float64)
        for i, (n, a, b) in enumerate(self.rows):
            out[i, : b - a] = x[a:b, n].double()
        return out

    def back(self, table: Tensor) -> Tensor:
        out = torch.zeros(T, N, dtype=torch.float64)
        for i, (n, a, b) in enumerate(self.rows):
            out[a:b, n] = table[i, : b - a]
        return out


class Critic(TableCritic):
    def __init__(self, value: Tensor, end: Tensor) -> None:
        super().__init__(value)
        self.end = end

    def after(self, batch: Batch) -> Tensor:
        return self.end


def batch_of(x: Rollout, stretches: Stretches) -> Groups:
    mask = stretches.table(torch.ones(T, N)).bool()
    finished = torch.tensor([bool(x.ended[b - 1, n]) for n, _, b in stretches.rows])
    rewards = stretches.table(x.reward)
    made = table_groups(rewards.sum(1).tolist(), mask, logp_old=stretches.table(x.logp_old))
    return made.replace(rewards=rewards, finished=finished)


@pytest.mark.parametrize("seed", range(4))
def test_losses_and_gradients_are_cleanrl_s(seed: int) -> None:
    x = rollout(seed)
    stretches = Stretches(x.ended)
    end = torch.stack([x.next_value[n] for n, _, _ in stretches.rows])  # read only where the rollout's end cut it off
    batch = batch_of(x, stretches)
    assert bool(batch.finished.any()) and not bool(batch.finished.all())
    method = PPO(kl_coef=0, discount=GAMMA, decay=LAMBDA, clip_low=CLIP, clip_high=CLIP, value_clip=CLIP)
    with torch.no_grad():
        batch = method.prepare(Models(critic=Critic(stretches.table(x.value_old), end)), batch)
    policy, critic = TablePolicy(stretches.table(x.logp)), Critic(stretches.table(x.value), end)
    loss = method.loss(Models(policy=policy, critic=critic), batch.counted())
    loss.value.backward()
    expected = transcribed(x)
    assert policy.table.grad is not None and critic.table.grad is not None
    close(loss.terms["policy"].value.detach(), expected[0])
    close(loss.terms["value"].value.detach(), expected[1])
    close(stretches.back(policy.table.grad), expected[2])
    close(stretches.back(critic.table.grad), expected[3])
