"""RLOO: REINFORCE whose baseline is the mean reward of the prompt's other completions.

    R_i = r_i − β Σ_t [ log π_old(y_it) − log π_ref(y_it) ]
    Â_i = R_i − 1/(n − 1) Σ_{j ≠ i} R_j                             within the group of one prompt
    L   = −mean_i Â_i Σ_t log π(y_it)

A completion is left out of its own baseline, so the estimate stays unbiased; its whole length is one action, and the
KL penalty is part of its reward.

Deviations: a group of one gets no gradient, where some implementations hand it the raw reward.  π_old is the policy
before the first update from the batch.  TRL's RLOO multiplies by a clipped sequence ratio, which at one update a batch
has the same gradient; the paper has none, so nothing corrects for several updates from one batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class RLOO(Method[Groups]):
    paper = Paper("2402.14740", "Ahmadian et al., 2024", parent="reinforce")

    kl_coef: NonNegative = 0.03  # β, nats; paper app. C (TL;DR)

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "reference") if self.kl_coef else ("policy",)

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Hold each completion against the others of its group: reward [B] -> advantage [B]."""
        reward = batch.reward
        if self.kl_coef:
            logp_old = models.policy.log_prob(batch) if batch.logp_old is None else batch.logp_old
            batch = batch.replace(logp_ref=models.reference.log_prob(batch))
            reward = reward - self.kl_coef * ops.k1(batch.log_ratio_ref(logp_old)).sum(1)
        return batch.replace(advantage=ops.leave_one_out(reward, batch.group))

    def silent(self, batch: Groups) -> Tensor:
        """Without the KL penalty a group of equal rewards pulls in no direction."""
        return torch.zeros(len(batch), dtype=torch.bool) if self.kl_coef else batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        loss = Loss(policy=batch.mean(-(batch.credit * logp).sum(1)))
        return loss.log(kl=batch.mean(ops.k1(batch.log_ratio_ref(logp)))) if self.kl_coef else loss
