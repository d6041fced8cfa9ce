"""PPO-Lagrangian: PPO that pays for costs at a price, which rises while they are above their limit and falls below it.

    J_C  = mean cost of the episodes that ended in the batch
    μ   ← [ μ + Adam_η( J_C − d ) ]_+                                 once a batch, before the policy learns from it
    Â    = ( Â^r − μ Â^c ) / (1 + μ)      Â^r of unit deviation, Â^c centred, in costs
    L    = PPO's with Â, + ½ mean_it ( V^c(s_it) − R^c_it )²

A saddle point of max_π min_μ≥0 J_R − μ (J_C − d) is a best policy among those within the limit, and the price is what
the limit costs there.  Division by 1 + μ keeps the step of the policy where PPO's is.

Deviations: μ is projected onto what is not negative, as in OmniSafe, where Ray et al. train a number under a softplus.
Both sum costs of an episode without discount for the dual step, and discount them for the credit; so does this.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Models, NonNegative, Paper, Positive, by_kind
from posttrain.methods.actor_critic.ppo import PPO
from posttrain.methods.constrained import _costs


@dataclass(frozen=True, kw_only=True)
class PPOLag(PPO):
    paper = Paper("https://cdn.openai.com/safexp-short.pdf", "Ray, Achiam & Amodei, 2019", parent="ppo")
    kinds = ("control",)
    defaults = by_kind(control={**PPO.defaults["control"], "task": "PendulumSpeed-v0"})

    limit: NonNegative = 25.0  # d, costs an episode; Ray et al. sec. 5
    price: NonNegative = 0.001  # μ at first, reward's deviations a cost; OmniSafe
    price_step: Positive = 0.035  # η, of Adam; OmniSafe
    cost_discount: Fraction = 0.99  # γ of costs; Ray et al.'s code
    cost_decay: Fraction = 0.97  # λ of GAE of costs; Ray et al.'s code

    @property
    def needs(self) -> tuple[str, ...]:
        return (*super().needs, "cost_critic")

    @property
    def lr_scale(self) -> Mapping[str, float]:
        return {**super().lr_scale, "cost_critic": self.critic_scale}

    def initial_state(self) -> dict[str, float]:
        return ops.begun("price", self.price)

    def prepare(self, models: Models, batch: Groups) -> Groups:
        batch = super().prepare(models, batch)
        found = _costs.of_an_episode(batch)
        if found is not None:
            self.move_price(models.state, found[0] - self.limit)
        price = models.state["price"]
        advantage, target = _costs.credit(models, batch, self.cost_discount, self.cost_decay)
        return batch.replace(advantage=(batch.credit - price * advantage) / (1 + price)).with_extra(cost_target=target)

    def move_price(self, state: dict[str, float], excess: float) -> None:
        """One step up J_C − d."""
        ops.adam_(state, "price", -excess, self.price_step)
        state["price"] = max(0.0, state["price"])

    def loss(self, models: Models, batch: Groups) -> Loss:
        value = models.cost_critic.values(batch)
        error = (value - batch.extra["cost_target"]) ** 2
        loss = super().loss(models, batch).add(cost_value=batch.mean(error / 2))
        return loss.log(cost_value=batch.mean(value), price=batch.mean(torch.full_like(value, models.state["price"])))
