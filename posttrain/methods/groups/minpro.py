"""MinPRO: weigh a token by its own ratio times the smallest ratio before it, in place of the product of them all.

    ρ_it = π(y_it) / π_old(y_it)
    w_it = ρ_it · sg( min_{j<t} ρ_ij ),  w_i1 = ρ_i1
    L    = −mean_i 1/|y_i| Σ_t min( w_it Â_i, clip(w_it, 1 − ε_low, 1 + ε_high) Â_i )

The exact correction for token t is Π_{j≤t} ρ_ij, whose variance grows with t; GRPO keeps ρ_it alone.  The smallest
earlier ratio says how far the prefix has left the policy, and does not accumulate.  For t ≤ 2 it is exact.

Deviations: mechanism from the abstract; that the minimum carries no gradient, that w and not ρ is clipped, and the
clip range are ours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class MinPRO(Method[Groups]):
    paper = Paper("2601.22718", "Lei et al., 2026", parent="grpo")

    clip_low: Fraction = 0.2  # ε_low, of w; PPO's default
    clip_high: NonNegative = 0.2  # ε_high, of w; PPO's default

    def prepare(self, models: Models, batch: Groups) -> Groups:
        return batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))

    def silent(self, batch: Groups) -> Tensor:
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        log_ratio = batch.log_ratio(models.policy.log_prob(batch))  # [B, T]
        log_weight = log_ratio + smallest_before(log_ratio.detach(), batch.mask)
        weight = log_weight.clamp(max=80).exp()  # beyond that exp is no number in fp32
        gain, clipped = ops.clipped_gain(weight, batch.credit, self.clip_low, self.clip_high)
        loss = Loss(policy=batch.mean(batch.mean_per_row(-gain)))
        return loss.log(weight=batch.mean(weight), clipped=batch.mean(clipped))


def smallest_before(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """min_{j<t} log ρ_j over the earlier decisions of the same row, [B, T]; 0 where there are none."""
    own = log_ratio.masked_fill(~mask, torch.inf)
    before = torch.cat([torch.full_like(own[:, :1], torch.inf), own[:, :-1]], 1).cummin(1).values
    return torch.where(before.isinf(), 0.0, before)
