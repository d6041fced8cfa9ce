"""ReLOAD: policy and price both step along where their gradients are heading, so that the last policy is the good one.

    Lagr = J_R − μ (J_C − d),   Â = Â^r − μ Â^c              Â^r of unit deviation, Â^c centred, in costs
    g_k  = ∇θ −mean_it ρ_it Â_it,   θ_k+1 = θ_k − α [ g_k + ω (g_k − g_k−1) ]
    h_k  = J_C(π_k) − d,            μ_k+1 = [ μ_k + η ( h_k + ω (h_k − h_k−1) ) ]_+
    L_V  = ½ mean_it ( (V − R)² + (V^c − R^c)² )             by AdamW in every pass; π moves in the first alone

Plain ascent and descent (ω = 0) circle the saddle point of the Lagrangian: only their average is near it, and policies
take turns at paying too much and costing too much.  One step's anticipation (ω = 1) turns the circle into a spiral to
the saddle.

Deviations: from the paper's theorem, where a table of a policy takes mirror steps; which agents and which gradients its
deep form has could not be verified.  Here the policy descends plainly, because the average in Adam is an anticipation
of the other sign.  Extrapolated gradients are of different batches, with twice the noise of one.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from posttrain import ops
from posttrain.core import (
    Count,
    Fraction,
    Groups,
    Loss,
    Method,
    Models,
    NonNegative,
    Paper,
    Positive,
    Rule,
    Step,
    by_kind,
)
from posttrain.methods.constrained import _costs


@dataclass(frozen=True, kw_only=True)
class ReLOAD(Method[Groups]):
    paper = Paper("2302.01275", "Moskovitz et al., 2023", parent="ppo-lag")
    kinds = ("control",)
    couples_decisions = False
    defaults = by_kind(control={  # ours
        "lr": 1e-3, "segment": 2000, "normalize_obs": True, "task": "PendulumSpeed-v0"})

    epochs: Count = 20  # passes over each batch, of the critics; ours
    optimism: NonNegative = 1.0  # ω, of one step's change; paper
    policy_scale: Positive = 100.0  # α over the run's learning rate; ours
    critic_scale: Positive = 1.0  # the critics' learning rate over the run's; ours
    limit: NonNegative = 25.0  # d, costs an episode; Ray et al. 2019
    price: NonNegative = 0.0  # μ at first, reward's deviations a cost; ours
    price_step: Positive = 0.001  # η, a cost; ours
    discount: Fraction = 0.99  # γ; Ray et al.'s code
    decay: Fraction = 0.97  # λ of GAE; Ray et al.'s code
    cost_discount: Fraction = 0.99  # γ of costs; Ray et al.'s code
    cost_decay: Fraction = 0.97  # λ of GAE of costs; Ray et al.'s code

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "critic", "cost_critic")

    @property
    def lr_scale(self) -> Mapping[str, float]:
        return {"policy": self.policy_scale, "critic": self.critic_scale, "cost_critic": self.critic_scale}

    @property
    def rules(self) -> Mapping[str, Rule]:
        return {"policy": self.step}

    def initial_state(self) -> dict[str, float]:
        return {"updates": 0.0, "price": self.price, "excess": 0.0, "dual_steps": 0.0}

    def moves(self, models: Models) -> Collection[str]:
        first = models.state["updates"] % (self.epochs * self.minibatches) < self.minibatches
        return [name for name in self.lr_scale if first or name != "policy"]

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """The credit of rewards and costs at the present price, which then moves."""
        value = models.critic.values(batch)
        end = torch.where(batch.finished, 0.0, models.critic.after(batch))
        advantage = ops.gae(batch.step_reward.to(value), value, batch.mask, end, self.discount, self.decay)
        of_cost, cost_target = _costs.credit(models, batch, self.cost_discount, self.cost_decay)
        mixed = ops.batch_normalize(advantage, batch.mask) - models.state["price"] * of_cost
        if found := _costs.of_an_episode(batch):
            self.move_price(models.state, found[0] - self.limit)
        return batch.replace(advantage=mixed).with_extra(value_target=advantage + value, cost_target=cost_target)

    def move_price(self, state: dict[str, float], excess: float) -> None:
        change = excess - state["excess"] if state["dual_steps"] else 0.0
        state["price"] = max(0.0, state["price"] + self.price_step * (excess + self.optimism * change))
        state |= {"excess": excess, "dual_steps": state["dual_steps"] + 1}

    def loss(self, models: Models, batch: Groups) -> Loss:
        value, cost = models.critic.values(batch), models.cost_critic.values(batch)  # [B, T]
        errors = (value - batch.extra["value_target"]) ** 2, (cost - batch.extra["cost_target"]) ** 2
        loss = Loss(value=batch.mean(errors[0] / 2), cost_value=batch.mean(errors[1] / 2))
        loss.log(price=batch.mean(torch.full_like(value, models.state["price"])))
        if "policy" in self.moves(models):
            ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()
            loss.add(policy=batch.mean(-ratio * batch.credit))
        return loss

    def step(self, at: Step) -> None:
        """The policy's own."""
        change = at.gradient - at.kept.get("gradient", at.gradient)
        at.kept["gradient"] = at.gradient
        at.put(at.weights - at.lr * (at.gradient + self.optimism * change))

    def after_step(self, models: Models, metrics: Mapping[str, float]) -> None:
        models.state["updates"] += 1
