"""OPO: exactly on-policy, with the baseline that makes the gradient's variance least.

    b   = Σ_j |y_j| r_j / Σ_j |y_j|                                 within the group of one prompt
    Â_i = r_i − b
    L   = −mean_it Â_i log π(y_it)

The best baseline weighs each reward by its gradient's squared norm; with tokens' gradients of like size and nearly
orthogonal, that is the completion's length.  With equal lengths it is the group's mean.  No division by the spread, no
clip and no KL term: every update sees fresh samples.

Deviations: the paper writes the gradient of a whole completion's log-probability; as in its released code the sum over
tokens is divided by the number of tokens in the batch, which leaves the direction as it is.  A group of one gets no
gradient, where the released code hands it the raw reward.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, Paper


@dataclass(frozen=True, kw_only=True)
class OPO(Method[Groups]):
    paper = Paper("2505.23585", "Hao et al., 2025", parent="grpo")

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Subtract the group's mean reward weighted by length: reward [B] -> advantage [B]."""
        length = batch.mask.sum(1).to(batch.reward)
        total = ops.group_mean(length, batch.group)
        baseline = ops.group_mean(length * batch.reward, batch.group) / total.clamp(min=1e-9)
        equal = ops.is_constant(batch.reward, batch.group)
        return batch.replace(advantage=torch.where(equal, 0.0, batch.reward - baseline))

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal rewards pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        return Loss(policy=batch.mean(-batch.credit * logp))
