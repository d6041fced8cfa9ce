"""TRPO: the longest step along the natural gradient that keeps the policy within δ nats of where the batch found it.

    Â_it = (G_it − mean G) / (std G + 1e-8),   G of GAE, R_it = G_it + V_old(s_it)
    L    = −mean_it π(a_it | s_it) / π_old(a_it | s_it) Â_it
    D    = mean_it KL( π_old( · | s_it) ‖ π( · | s_it) ),   H = ∇²D + ζ I
    x    ≈ −H⁻¹ ∇L                                          by k products with H (conjugate gradients)
    θ    ← θ + ξ^j √(2 δ / xᵀ H x) x                        the first j with L < L_old and D ≤ δ, else θ stays
    L_V  = ½ mean_it (V(s_it) − R_it)²                      by AdamW in every pass; π moves in the first alone

How far a step may go is said in what the policy does, not in its weights, and is checked on the batch before it is
taken, so no learning rate has to suit the policy.

Deviations: H v is a central difference of ∇D instead of its derivative, so that whatever is trained by gradients can
be stepped so.  The critic is AdamW's, as in OpenAI's Spinning Up, where the authors' code fits it by L-BFGS; normalised
advantages and GAE are that code's, later than the paper.  With several minibatches each of them takes a step in the
first pass, all within one δ of π_old.  Each of Â's decisions counts alike, none is weighed by γ^t, as in all that code.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

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
    kl_from,
)


@dataclass(frozen=True, kw_only=True)
class TRPO(Method[Groups]):
    paper = Paper("1502.05477", "Schulman et al., 2015", parent="reinforce")
    couples_decisions = False
    defaults = by_kind(control={  # γ, λ, actions in a batch: Schulman's modular_rl; the critic: Spinning Up
        "discount": 0.995, "decay": 0.97, "epochs": 80, "critic_scale": 1.0, "lr": 1e-3, "segment": 5000})

    epochs: Count = 4  # passes over each batch, of the critic; as PPO's for language models
    radius: Positive = 0.01  # δ, nats a decision; paper app. E
    damping: NonNegative = 0.1  # ζ; modular_rl, the paper does not say
    products: Count = 10  # k, of H with a vector; paper app. C
    shrink: Fraction = 0.8  # ξ, of a step that is refused; Spinning Up, the paper does not say
    tries: Count = 10  # steps tried, j < this; Spinning Up
    discount: Fraction = 1.0  # γ; as PPO's for language models
    decay: Fraction = 0.95  # λ of GAE; as PPO's for language models
    critic_scale: Positive = 10.0  # the critic's learning rate over the run's; as PPO's for language models

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "anchor", "critic")

    @property
    def lr_scale(self) -> Mapping[str, float]:
        return {"policy": 1.0, "critic": self.critic_scale}

    @property
    def rules(self) -> Mapping[str, Rule]:
        return {"policy": self.step}

    def initial_state(self) -> dict[str, float]:
        return {"updates": 0.0}

    def moves(self, models: Models) -> Collection[str]:
        first = models.state["updates"] % (self.epochs * self.minibatches) < self.minibatches
        return [name for name in self.lr_scale if first or name != "policy"]

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """What each decision brought beyond what was expected; the anchor becomes π_old."""
        ops.follow_(models.anchor.module, models.policy.module, 1.0)
        value = models.critic.values(batch)
        end = torch.where(batch.finished, 0.0, models.critic.after(batch))
        advantage = ops.gae(batch.step_reward.to(value), value, batch.mask, end, self.discount, self.decay)
        batch = batch.replace(advantage=ops.batch_normalize(advantage, batch.mask))
        return batch.with_extra(value_target=advantage + value)

    def loss(self, models: Models, batch: Groups) -> Loss:
        value = models.critic.values(batch)  # [B, T]
        error = (value - batch.extra["value_target"]) ** 2
        return self.climb(models, batch, Loss(value=batch.mean(error / 2)).log(value=batch.mean(value)))

    def climb(self, models: Models, batch: Groups, loss: Loss) -> Loss:
        """With the policy's own terms, where it moves."""
        if "policy" in self.moves(models):
            ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()
            loss.add(policy=batch.mean(-ratio * batch.credit))
            loss.aside(kl=batch.mean(kl_from(models.policy, models.anchor, batch)))
        return loss

    def step(self, at: Step) -> None:
        """The policy's own."""
        before = at.values()["policy"]
        x = self.solve(at, -at.gradient)
        bend = float(x @ self.bend(at, x))
        self.search(at, (2 * self.radius / bend) ** 0.5 * x if bend > 0 else 0 * x, lambda now: now["policy"] < before)

    def bend(self, at: Step, x: Tensor) -> Tensor:
        """H x."""
        return at.curvature("kl", x) + self.damping * x

    def solve(self, at: Step, b: Tensor) -> Tensor:
        """H⁻¹ b, about."""
        return ops.conjugate_gradient(lambda v: self.bend(at, v), b, self.products)

    def search(self, at: Step, longest: Tensor, good: Callable[[Mapping[str, float]], bool]) -> None:
        """Go as far along `longest` as stays within δ and is good; what is judged are the loss's terms."""
        start = at.weights

        def accepts(share: float) -> bool:
            at.put(start + share * longest)
            now = at.values()
            return now["kl"] <= self.radius and good(now)

        share = ops.backtrack(accepts, self.shrink, self.tries)
        if share == 0:
            at.put(start)
        at.log(kl=at.values()["kl"], step_share=share)

    def after_step(self, models: Models, metrics: Mapping[str, float]) -> None:
        models.state["updates"] += 1
