"""R²VPO: bound the variance of the importance ratio, with a multiplier that learns its price, instead of clipping it.

    ρ_it = π(y_it) / π_old(y_it),   χ² = mean_it (ρ_it − 1)²
    L    = −mean_it ρ_it Â_it + λ ( χ² − δ )
    λ    ← max( 0, λ + η ( χ² − δ ) )                              after every step

Under samples of π_old, χ² is the divergence of that name from π to π_old, 2 KL to second order.  A clip takes a token's
gradient away at once; here it is ρ (Â − 2 λ (ρ − 1)), which a large Â can still afford, and stale tokens are damped
rather than dropped.

Deviations: from the abstract and a summary.  δ, η and the first λ are ours, as is the advantage, GRPO's.  The replay
of older samples is a source's business; π_old is the policy at the batch's start.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from posttrain import ops
from posttrain.core import Count, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class R2VPO(Method[Groups]):
    paper = Paper("2601.03320", "Luo et al., 2026", parent="grpo")

    epochs: Count = 4  # passes over each batch; ours, one alone never leaves ρ = 1
    variance: NonNegative = 0.01  # δ, of the ratio; ours
    dual_rate: NonNegative = 1.0  # η, per unit of variance; ours
    first_price: NonNegative = 1.0  # λ at the start, advantage per unit of variance; ours

    def initial_state(self) -> dict[str, float]:
        return {"price": self.first_price}

    def prepare(self, models: Models, batch: Groups) -> Groups:
        return batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        spread, price = (ratio - 1) ** 2, models.state["price"]
        loss = Loss(policy=batch.mean(-ratio * batch.credit), variance=batch.mean(price * (spread - self.variance)))
        return loss.log(ratio=batch.mean(ratio), chi2=batch.mean(spread))

    def after_step(self, models: Models, metrics: Mapping[str, float]) -> None:
        """λ rises where the bound was broken; a step that was no number, and so not taken, tells nothing."""
        excess = metrics.get("chi2", math.nan) - self.variance
        if math.isfinite(excess):
            models.state["price"] = max(0.0, models.state["price"] + self.dual_rate * excess)
