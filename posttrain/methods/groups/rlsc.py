"""RLSC: the policy's own probability of a completion is its reward, so that it grows surer without labels or verifier.

    F = Σ_y π(y)²                                            the probability that two samples agree
    L = −mean_i (π_old(y_i) + α) Σ_t log π(y_it),   π_old(y_i) = exp Σ_t log π_old(y_it), a constant

The expected gradient of L at α = 0 is −½ ∇F.  No baseline, ratio, clipping or KL term: likelihood of the samples,
weighted by how likely they were.  The reward of the batch is never read.

Deviations: the authors sample at a temperature near 0.5 and stop after 10 to 20 steps; both are the run's settings.
π_old(y) vanishes for long completions, and what α adds has zero mean at π = π_old when sampling at temperature 1, so
then the effect is that of sampling colder than the policy.  The objective is as summaries of the paper state it; α's
value, and the sum over tokens rather than their mean, are from memory and could not be checked against code.
"""

from dataclasses import dataclass

import torch

from posttrain.core import Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class RLSC(Method[Groups]):
    paper = Paper("2506.06395", "Li et al., 2025")

    smoothing: NonNegative = 0.1  # α, a probability added to every weight; from memory

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Weigh each completion by its own probability: advantage [B]."""
        logp = models.policy.log_prob(batch) if batch.logp_old is None else batch.logp_old
        return batch.replace(advantage=torch.where(batch.mask, logp, 0.0).sum(1).exp() + self.smoothing)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        weight = batch.credit[:, 0]
        return Loss(policy=batch.mean(-weight * logp.sum(1))).log(weight=batch.mean(weight))
