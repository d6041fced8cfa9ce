"""Uni-O4's clones, steps and judgements by hand, and where it is plainer methods."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from control_toy import ControlLearner, toy_transitions
from table_control import Table, table_transitions
from torch import Tensor, nn
from worked import close, f64

from posttrain.core import Models
from posttrain.methods.offline.bc import BC
from posttrain.methods.offline.iql import IQL
from posttrain.methods.offline.uni_o4 import UniO4
from posttrain.policies.dynamics import Believed


class Members(nn.Module):
    """log π_k of a state is a number of a table [K, states], whatever the action; μ_k is one action everywhere."""

    def __init__(self, logp: list[list[float]], does: list[float]) -> None:
        super().__init__()
        self.table, self.does = nn.Parameter(f64(logp)), f64(does)
        self.chosen = torch.zeros((), dtype=torch.long)

    @property
    def module(self) -> Members:
        return self

    @property
    def ensemble(self) -> int:
        return len(self.does)

    def modes(self, seen: Tensor) -> Tensor:
        return self.does[:, None, None].expand(-1, seen.shape[-2], 1)

    def draws(self, seen: Tensor, noise: Tensor) -> Tensor:
        return self.modes(seen) + noise

    def densities(self, seen: Tensor, action: Tensor) -> Tensor:
        return self.table[:, seen[:, 0].long()]

    def take(self, other: Members, which: Tensor) -> None:
        with torch.no_grad():
            self.table[which] = other.table[which]


class Linear(nn.Module):
    """Q_1 = s + a, Q_2 = s + 2 a."""

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return torch.stack([obs[:, 0] + action[:, 0], obs[:, 0] + 2 * action[:, 0]])


def walking(obs: Tensor, action: Tensor) -> Believed:
    """Two members of a model that say s + a and s + a + 2, so s + a + 1 on average; over from 4 on."""
    after = obs + action
    mean = torch.stack([torch.cat([after + k, 0 * after], 1) for k in (0, 2)])
    return Believed(mean, mean, (mean[..., 0].mean(0) - 3.5).expand(2, -1))


def models(updates: int, **changes: Any) -> Models:
    """Two members, two states."""
    own: dict[str, Any] = {
        "policy": Members([[-1.0, -2.0], [-1.5, -0.5]], [0.5, -0.25]),
        "anchor": Members([[-1.2, -2.0], [-1.5, -1.0]], [0.5, -0.25]), "critic": Table([0.5, 1.0, 2.0, 3.0]),
        "q": Linear(), "q_target": Table([[2.0, 3.0, 0, 0], [1.0, 4.0, 0, 0]]), "dynamics": walking}
    return Models(UniO4().initial_state() | {"updates": float(updates)}, **own | changes)


def test_clones_by_hand() -> None:
    # Member 0 is the likelier in state 0, member 1 in state 1; α = 0.2:
    # L_π = −½ [ 1.2 (−1) + 0.8 (−1.5)  +  0.8 (−2) + 1.2 (−0.5) ] = ½ [ 1.2 + 1.2 + 1.6 + 0.6 ] = 2.3
    # u = min Q̄ − V = 1 − 0.5, 3 − 1 = 0.5, 2; L_V with τ = 0.7: ½ 0.7 (0.25 + 4) = 1.4875
    # y = 1 + 0.9 · V(2) = 2.8 and 2, which terminated; Q = 0, 0 and 1, 1 for a = 0: L_Q = ½ [2 · 2.8² + 2 · 1] = 8.84
    method = UniO4(clone_updates=1, disagreement=0.2, discount=0.9)
    loss = method.loss(models(0), table_transitions([1.0, 2.0], [False, True]).counted())
    assert {name: float(term.value.detach()) for name, term in loss.terms.items()} == pytest.approx(
        {"policy": 2.3, "value": 1.4875, "q": 8.84}, abs=1e-12)


def test_steps_by_hand() -> None:
    # a = 0.5 and −0.25 of the two members (noise is 0).  min Q − V: member 0 0 + 0.5 − 0.5 = 0 and 1 + 0.5 − 1 = 0.5,
    # so Â = ∓ 1/√2; member 1: 2 a is the lesser: −0.5 − 0.5 = −1 and 1 − 0.5 − 1 = −0.5, so Â = ∓ 1/√2 too.
    # ρ = e^0.2 = 1.2214, 1 and 1, e^0.5 = 1.6487: of the second member's the last is clipped at 1.25.
    # L_π = −½ c [ −1.2214 + 1  +  −1 + 1.25 ],  c = 1/√2
    made, method = models(5), UniO4(clone_updates=1, judge_every=100, clip=0.25)
    made.state |= {"judged": 5.0, "best/0": 9.0, "best/1": 9.0}  # not again for 100 updates
    with torch.no_grad():
        batch = method.prepare(made, table_transitions([1.0, 2.0], [False, True]))
    assert batch.extra["tried"][:, :, 0].tolist() == [[0.5, -0.25]] * 2
    c = 1 / math.sqrt(2)
    assert torch.allclose(batch.extra["advantage"], f64([[-c, -c], [c, c]]), rtol=0, atol=1e-7)
    loss = method.loss(made, batch.counted())
    assert set(loss.terms) == set(method.moves(made)) == {"policy"}
    assert float(loss.value.detach()) == pytest.approx(-c / 2 * (1 - math.exp(0.2) + 1.25 - 1), abs=1e-7)
    assert float(loss.metrics["clipped"].value) == 0.25  # one of four


def test_judgements_by_hand() -> None:
    # Member 0, a = 0.5: from 0 to 1.5 to 3 to 4.5, which is over; min Q = s + 0.5: 0.5, 2, 3.5.
    #                    from 1 to 2.5 to 4, over:                                 1.5, 3.     J = 10.5 / 5 = 2.1
    # Member 1, a = −0.25: s + 0.75 each; min Q = s − 0.5: 0 … 2.25 (four): −0.5, 0.25, 1, 1.75; 1 … 3.25: 0.5, 1.25,
    # 2, 2.75.                                                                   J = 9 / 8 = 1.125
    method, obs = UniO4(horizon=4), f64([[0.0], [1.0]])
    close(method.judged(models(0), obs), [2.1, 1.125])


def test_a_policy_is_accepted_when_it_was_never_worth_more() -> None:
    found = iter([f64([1.0, 5.0]), f64([2.0, 4.0]), f64([1.5, 6.0])])
    judge = SimpleNamespace(judged=lambda models, obs: next(found))
    made, batch = models(0), table_transitions([1.0, 2.0], [False, True])
    policy, anchor = made.policy, made.anchor
    for step, (accepted, chosen, best) in enumerate((([0, 1], 1, [1, 5]), ([0], 1, [2, 5]), ([1], 1, [2, 6]))):
        with torch.no_grad():
            policy.table.fill_(float(step))
        UniO4.judge(judge, made, batch)  # type: ignore[arg-type]
        assert (anchor.table == step).all(1).nonzero()[:, 0].tolist() == accepted
        assert int(policy.chosen) == chosen
        assert [made.state["best/0"], made.state["best/1"]] == best


def learner(method: UniO4 | IQL | BC, **options: Any) -> ControlLearner:
    return ControlLearner(method, normalize_obs=False, policy="ensemble", **options)


def test_one_clone_without_disagreement_is_bc_beside_iql() -> None:
    one = {"ensemble": 1, "layers": 2, "activation": "relu", "task": "Pendulum-v1"}
    made = [learner(method, **one) for method in (UniO4(clone_updates=9, disagreement=0.0), BC(), IQL())]
    for each in made:
        each.update(toy_transitions(each.setting.spaces, noises=1))
    ours, clone, theirs = made
    close(ours.gradient("policy"), clone.gradient("policy"))
    for network in ("critic", "q"):
        close(ours.gradient(network), theirs.gradient(network))


def test_its_steps_do_not_depend_on_how_a_batch_is_split() -> None:
    found = []
    for sizes in (12, 5):
        made = learner(UniO4(clone_updates=1, judge_every=2, horizon=3), task="Pendulum-v1")
        made.setting.policy.split = lambda batch, whole, n=sizes: list(torch.arange(12).split(n))  # type: ignore[method-assign]
        for step in range(4):
            made.update(toy_transitions(made.setting.spaces, step, 1), step)
        found.append(made.weights)
        assert {name: o.steps for name, o in made.optimizers.items()} == {"policy": 4, "critic": 1, "q": 1}
    close(*found)


def test_the_member_that_is_chosen_acts_and_alone_goes_on() -> None:
    made = learner(UniO4(), task="Pendulum-v1").setting.policy
    made.chosen.fill_(2)
    obs, action = torch.randn(5, 3).double(), torch.randn(5, 1).double()
    assert torch.equal(made.mode(obs), made.modes(obs)[2])
    assert torch.equal(made.log_density(obs, action), made.densities(obs, action)[2])
    made.log_density(obs, action).sum().backward()
    for p in made.parameters():
        assert p.grad is not None and (p.grad[[0, 1, 3]] == 0).all() and p.grad[2].any()
    mean, log_std = made.moments(obs)
    assert ((log_std > -5) & (log_std < 0)).all() and (mean.abs() < 1).all()
    z = torch.distributions.Normal(mean[2], log_std[2].exp())
    close(made.log_density(obs, action), z.log_prob(action).sum(-1))
    close(made.entropy(obs), z.entropy().sum(-1))
    other = made.initial()
    with torch.no_grad():
        other.members.biases[-1].fill_(0.5)
    made.take(other, torch.tensor([True, False, False, True]))
    assert (made.members.biases[-1] == 0.5).flatten(1).all(1).tolist() == [True, False, False, True]
