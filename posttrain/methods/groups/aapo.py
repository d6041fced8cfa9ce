"""AAPO: add to the group's advantage how much an answer improves on the reference model's, within bounds.

    Â_i = (r_i − mean r) / (std r + 1e-4)                           within the samples of one prompt
    m_i = mean_j clip( r_i − r_j, −0.2, 0.28 )                      over the reference's answers j to that prompt
    L   = −mean_it (Â_i + m_i) log π(y_it)                          over sampled tokens

A group whose samples are all right still learns where the reference was wrong, and one that is all wrong is pushed
away where the reference was right.  No ratio, no clipping of it and no KL term; m = 0 is GRPO's first gradient, with a
mean over all tokens.

The reference's answers are the rows that were given: sampled from the initial model beforehand and scored, they stand
in the task beside the prompt.  A prompt without any has m_i = 0.

Deviations: the authors sample the reference anew at every step and pair its i-th answer with the policy's i-th; m_i is
the mean over all such pairings of the answers at hand.  Where the given answers are not the initial model's but always
right, m_i only pushes wrong answers down.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, Paper

LOW, HIGH = 0.2, 0.28  # of the margin, reward; fixed numbers in the released code


@dataclass(frozen=True, kw_only=True)
class AAPO(Method[Groups]):
    paper = Paper("2505.14264", "Xiong et al., 2025", parent="grpo")
    learns_from = "both"

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Advantage and margin of each sample, [B]; 0 for given rows, which `sampled` [B, T] leaves out."""
        own = ~batch.extra["given"]
        advantage, margin = torch.zeros_like(batch.reward), self._margin(batch)
        advantage[own] = ops.group_normalize(batch.reward[own], batch.group[own]) + margin[own]
        sampled = own[:, None].expand(batch.mask.shape).to(batch.reward)
        return batch.replace(advantage=advantage).with_extra(sampled=sampled, margin=margin, own=own.to(margin))

    def _margin(self, batch: Groups) -> Tensor:
        """m, [B]."""
        mine = (batch.group[:, None] == batch.group) & batch.extra["given"]  # [B, B]: j is the reference's for i
        ahead = (batch.reward[:, None] - batch.reward).clamp(-LOW, HIGH)
        return torch.where(mine, ahead, 0.0).sum(1) / mine.sum(1).clamp(min=1)

    def silent(self, batch: Groups) -> Tensor:
        """Given rows, and samples whose advantage and margin cancel or vanish."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        loss = Loss(policy=batch.mean(-batch.credit * logp, weight="sampled"))
        return loss.log(margin=batch.mean(batch.extra["margin"], weight="own"))
