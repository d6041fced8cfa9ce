"""TOPR: learn good completions at full weight however old they are, and bad ones only while still likely.

    R_i = r_i − c
    w_i = 1                                                         where R_i ≥ 0
    w_i = min( 1, Π_t π(y_it) / μ(y_it) )                           where R_i < 0, μ being the policy that sampled
    L   = −mean_i sg(w_i) R_i Σ_t log π(y_it)

REINFORCE on old samples pushes a bad completion down for ever; the truncated ratio of the whole completion stops that
once the policy no longer makes it, and nothing need hold the policy near a reference.

Deviations: the paper scores answers −1 and 1; rewards of 0 and 1 with c = 1/2 are the same with c = 0, up to a factor.
μ is what the sampler recorded, so a difference in rounding between sampler and trainer counts as
a small ratio.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, Paper


@dataclass(frozen=True, kw_only=True)
class TOPR(Method[Groups]):
    paper = Paper("2503.14286", "Le Roux et al., 2025", parent="reinforce")

    baseline: float = 0.5  # c, reward; midway between wrong and right, as −1 and 1 around 0 in the paper

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Rewards around the baseline: reward [B] -> advantage [B]."""
        return batch.replace(advantage=batch.reward - self.baseline)

    def silent(self, batch: Groups) -> Tensor:
        """A reward at the baseline pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp, advantage = models.policy.log_prob(batch), batch.credit[:, 0]  # [B, T], [B]
        ratio = torch.where(batch.mask, logp - batch.logp_behaviour, 0.0).sum(1).exp()
        weight = torch.where(advantage < 0, ratio.clamp(max=1), 1.0)
        gain = ops.weighted_log_prob(weight, advantage, logp.sum(1))
        return Loss(policy=batch.mean(-gain)).log(weight=batch.mean(weight))
