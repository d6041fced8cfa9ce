"""G²RPO (OpenVLThinkerV2): advantages are standard normal whatever the rewards look like, because only ranks count.

    Â_i  = Φ⁻¹( (k_i − ½) / G ),  k_i: rank of r_i among the G rewards of its group, 1 the lowest
           completions of equal reward get the mean of the quantiles that they occupy
    ρ_it = π(y_it) / π_old(y_it)
    L    = −mean_i 1/|y_i| Σ_t min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i )

GRPO with the straight line (r − mean r) / std r replaced by the one-dimensional optimal transport onto N(0, 1): any
increasing function of the reward gives the same advantages, they add up to 0, and an outlier is worth no more than
the first place.

Deviations: that ranks are mapped through the normal quantile function is as reviews of the paper state; the offset ½
and the rule for ties are assumptions.  The paper's shaping of length and entropy, which depends on the kind of visual
task, is left out, as is a KL term.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class G2RPOOpenVLThinkerV2(Method[Groups]):
    paper = Paper("2604.08539", "Hu et al., 2026", parent="grpo")

    clip_low: Fraction = 0.2  # ε_low, per token; PPO's default
    clip_high: NonNegative = 0.2  # ε_high, per token; PPO's default

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """reward [B] -> advantage [B]."""
        return batch.replace(advantage=normal_scores(batch.reward, batch.group).to(batch.reward.dtype))

    def silent(self, batch: Groups) -> Tensor:
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        loss = Loss(policy=batch.mean(batch.mean_per_row(-gain)))
        return loss.log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))


def normal_scores(reward: Tensor, group: Tensor) -> Tensor:
    """Φ⁻¹ of each row's rank within its group: reward, group [B] -> [B] float64; exactly 0 for equal rewards."""
    _, index, counts = group.unique(return_inverse=True, return_counts=True)
    values, level = reward.unique(return_inverse=True)
    key = index * len(values) + level  # orders by group, then by reward; equal only for ties
    order = key.argsort()
    rank = torch.arange(len(key)) - (counts.cumsum(0) - counts)[index[order]]
    score = torch.zeros(len(key), dtype=torch.float64)
    score[order] = torch.special.ndtri((rank.double() + 0.5) / counts[index[order]])
    return torch.where(ops.is_constant(reward, group), 0.0, ops.group_mean(score, key))
