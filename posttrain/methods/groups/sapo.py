"""SAPO: a smooth gate on the ratio in place of a clip, steeper where the advantage is negative.

    Â_i  = (r_i − mean r) / (std r + 1e-4)                          within the group of one prompt
    ρ_it = π(y_it) / π_old(y_it)
    f_it = 4/τ σ( τ (ρ_it − 1) )                                    τ = τ_pos where Â_i > 0, else τ_neg
    L    = −mean_i 1/|y_i| Σ_t f_it Â_i

The gate's slope is 1 at ρ = 1, so the first gradient is GRPO's, and it fades on both sides without an edge.  A negative
advantage raises all the tokens that were not chosen, hence the faster fading.  No KL term.

Deviations: 1e-4 and exactly 0 for equal rewards are as in `grpo`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class SAPO(Method[Groups]):
    paper = Paper("2511.20347", "Gao et al., 2025", parent="grpo")

    temperature_positive: Positive = 1.0  # τ_pos; paper
    temperature_negative: Positive = 1.05  # τ_neg; paper

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Hold each completion against its own group: reward [B] -> advantage [B]."""
        return batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal rewards pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        tau = torch.full_like(ratio, self.temperature_positive)
        tau = tau.masked_fill(batch.credit <= 0, self.temperature_negative)
        gate = torch.sigmoid(tau * (ratio - 1)) * 4 / tau
        return Loss(policy=batch.mean(batch.mean_per_row(-gate * batch.credit))).log(ratio=batch.mean(ratio))
