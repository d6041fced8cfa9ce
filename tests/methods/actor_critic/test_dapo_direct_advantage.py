"""DAPO's regression of steps, worked by hand; a TableCritic's values are free."""

from __future__ import annotations

import torch
from torch import Tensor
from toy import Learner, TableCritic, TablePolicy, table_groups
from worked import close, f64

from posttrain.core import Groups
from posttrain.methods.actor_critic.dapo_direct_advantage import DAPODirectAdvantage

# Row 0 decides at 0, 2, 3 around a tool's answer, with V = ¼, ½, ¾ and r = 1; row 1 decides once, V = ½ and r = 0.
MASK = [[1, 0, 1, 1], [1, 0, 0, 0]]
VALUE = f64([[0.25, 99, 0.5, 0.75], [0.5, 99, 99, 99]])
GAINED = f64([[0.25, 0, 0.25, 0.25], [-0.5, 0, 0, 0]])


def learn(batch: Groups, logp: Tensor, beta: float, sizes: tuple[int, ...] = ()
          ) -> tuple[dict[str, float], Groups, Tensor]:
    """Metrics, the batch as prepared, and both gradients, [2, B, T]."""
    method = DAPODirectAdvantage(beta=beta, epochs=1)
    learner = Learner(method, TablePolicy(logp, sizes), critic=TableCritic(VALUE))
    prepared = learner.update(batch)
    return learner.metrics, prepared, learner.gradient.view(2, *logp.shape)


def test_first_gradient_is_that_of_an_actor_and_a_critic_of_outcomes() -> None:
    # Each decision is credited with the change of V to the next own decision, the last with r − V.  At π = π_t
    # dL/dlog π = −A / β over 4 decisions, and dL/dV = (V − r) / 4 at each, whatever comes between.
    for sizes in ((), (1, 1)):
        metrics, prepared, (policy, critic) = learn(table_groups([1, 0], MASK), f64([[-1] * 4] * 2), 0.5, sizes)
        close(prepared.credit, GAINED)
        close(policy, -GAINED / 0.5 / 4)
        close(critic, f64([[-0.75, 0, -0.5, -0.25], [0.5, 0, 0, 0]]) / 4)
        close(metrics["loss/value"], (0.5625 + 0.25 + 0.0625 + 0.25) / 4 / 2)
        close(metrics["loss/policy"], (3 * 0.25 + 1) / 4 / 2)  # A / β = ½, ½, ½ and −1


def test_rests_where_every_step_has_moved_by_its_own_advantage() -> None:
    old = f64([[-1.0, 7, -2, -3], [-1, 7, 7, 7]])
    metrics, _, (policy, _) = learn(table_groups([1, 0], MASK, logp_old=old), old + GAINED / 0.3, 0.3)
    close(metrics["loss/policy"], 0)
    close(policy, torch.zeros(2, 4))


def test_a_step_that_changes_nothing_is_held_where_it_was() -> None:
    # An exact critic of a decided outcome, V = r throughout: A = 0, so the target is π_t and any move is undone.
    batch = table_groups([0.5], [[1]], logp_old=f64([[-2.0]]))
    learner = Learner(DAPODirectAdvantage(epochs=1), TablePolicy(f64([[-1.7]])), critic=TableCritic(f64([[0.5]])))
    learner.update(batch)
    close(learner.gradient, [0.3, 0])
