"""A2C's returns and both gradients by hand; without critic and entropy it is REINFORCE with the reward to go."""

from __future__ import annotations

import torch
from torch import Tensor
from toy import Learner, TableCritic, TablePolicy, table_groups
from worked import close, f64

from posttrain.core import Batch, Groups
from posttrain.methods.actor_critic.a2c import A2C


class Followed(TableCritic):
    """What follows each row is worth this much."""

    def __init__(self, value: Tensor, end: Tensor) -> None:
        super().__init__(value)
        self.end = end

    def after(self, batch: Batch) -> Tensor:
        return self.end


def learn(method: A2C, batch: Groups, logp: Tensor, critic: TableCritic) -> tuple[dict[str, float], Groups, Tensor]:
    """Metrics, the batch as prepared, dL / dlog π and dL / dV, [2, B, T]."""
    learner = Learner(method, TablePolicy(logp), critic=critic)
    prepared = learner.update(batch)
    return learner.metrics, prepared, learner.gradient.view(2, *logp.shape)


def experience() -> Groups:
    """Row 0 is cut off after three decisions, row 1 ends after one."""
    batch = table_groups([3, 1], [[1, 1, 1], [1, 0, 0]])
    return batch.replace(rewards=f64([[1, 0, 2], [1, 0, 0]]), finished=torch.tensor([False, True]))


def critic() -> Followed:
    return Followed(f64([[1, 3, 2], [0.5, 0, 0]]), f64([4, 9]))


def test_returns_bootstrap_where_cut_off() -> None:
    # γ = ½, V after row 0 is 4, V after row 1 (9) is not read:
    #   R_2 = 2 + ½ · 4 = 4,  R_1 = 0 + ½ · 4 = 2,  R_0 = 1 + ½ · 2 = 2;   row 1: R_0 = 1
    # V = 1, 3, 2 and ½, so Â = 1, −1, 2 and ½.  Four decisions: dL/dlog π = −Â / 4, dL/dV = (V − R) / 4 = −Â / 4.
    # L_V = ½ (1 + 1 + 4 + ¼) / 4 = 25 / 32
    logp = f64([[-1.0] * 3] * 2)
    metrics, prepared, gradient = learn(A2C(discount=0.5, entropy_coef=0), experience(), logp, critic())
    advantage = f64([[1, -1, 2], [0.5, 0, 0]])
    close(prepared.extra["value_target"], [[2, 2, 4], [1, 0, 0]])
    close(prepared.credit, advantage)
    close(gradient, torch.stack([-advantage, -advantage]) / 4)
    close(metrics["loss/value"], 25 / 32)


def test_entropy_is_paid_for() -> None:
    # A table's entropy is −log π, so −β mean H adds +β / 4 to dL/dlog π, and β · mean log π = −β to the loss.
    logp = f64([[-1.0] * 3] * 2)
    plain, _, without = learn(A2C(discount=0.5, entropy_coef=0), experience(), logp, critic())
    paid, _, gradient = learn(A2C(discount=0.5, entropy_coef=0.2), experience(), logp, critic())
    mask = experience().mask
    close((gradient - without)[0], 0.2 / 4 * mask.double())
    close((gradient - without)[1], 0 * mask)
    close(paid["loss/policy"] - plain["loss/policy"], -0.2)


def test_without_a_baseline_it_is_reinforce() -> None:
    # V = 0 and γ = 1 on rows that ended with one reward: dL/dlog π = −r / 4 at each of the four decisions.
    batch = table_groups([3, -1], [[1, 0, 0], [1, 1, 1]])
    _, _, gradient = learn(A2C(entropy_coef=0), batch, f64([[-1.0] * 3] * 2), TableCritic(f64([[0.0] * 3] * 2)))
    close(gradient[0], f64([[-3, 0, 0], [1, 1, 1]]) / 4)
