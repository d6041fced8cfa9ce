"""Dr. GRPO: GRPO without its two divisions, by the spread of the rewards and by each completion's own length.

    Â_i  = r_i − mean r                                             within the group of one prompt
    ρ_it = π(y_it) / π_old(y_it)
    L    = −mean_i 1/L_max Σ_t min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i )

Dividing by |y_i| makes long wrong answers cheap, and dividing by the spread weighs prompts by how easy or hard they
are; with one constant for all, every token of every completion counts alike.  No KL term.

Deviations: none known from the authors' code, which divides by the longest completion allowed, L_max.  That length is
the source's limit, never the width of a padded batch, so padding and micro-batches cannot change it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class DrGRPO(Method[Groups]):
    paper = Paper("2503.20783", "Liu et al., 2025", parent="grpo")

    clip_low: Fraction = 0.2  # ε_low, per token; PPO's default
    clip_high: NonNegative = 0.2  # ε_high, per token; PPO's default

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Hold each completion against its group's mean: reward [B] -> advantage [B]."""
        return batch.replace(advantage=ops.group_center(batch.reward, batch.group))

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal rewards pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        total = torch.where(batch.mask, gain, 0.0).sum(1)  # [B]
        loss = Loss(policy=batch.mean(-total / batch.limit))
        return loss.log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))
