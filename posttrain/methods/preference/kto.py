"""KTO: learn from single answers that are good or bad, each held against a reference point, without pairs.

    h_i = log π(y_i) − log π_ref(y_i)                                        of whole answers
    z   = max( 0, mean_i h_i )                over the batch's fresh samples, before the update; 0 where it has none
    v_i = λ_D σ( β (h_i − z) )                if r_i > κ, desirable
          λ_U σ( β (z − h_i) )                otherwise
    L   = mean_i ( λ_i − v_i )

A prospect-theoretic value: gains and losses against z saturate on both sides, so an answer that is hopeless or already
settled is left alone, and the two kinds of answer may be as unbalanced as they are.  z stands for KL(π ‖ π_ref), which
moves all answers up alike.

Deviations: the authors estimate z by scoring each answer under another prompt of the micro-batch, which is biased; the
mean of h over the policy's own fresh samples is unbiased for the KL before it is clamped, and is used instead.  Given
answers are not samples of π and say nothing of it: on those alone z = 0, which the paper (from memory) finds good
enough after fine-tuning on the same answers.  z is that of the whole batch and stays while the batch is in use.
"""

from dataclasses import dataclass

import torch

from posttrain.core import Groups, Loss, Method, Models, NonNegative, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class KTO(Method[Groups]):
    paper = Paper("2402.01306", "Ethayarajh et al., 2024", parent="dpo")
    learns_from = "preferences"

    beta: Positive = 0.1  # β, per nat; paper sec. 4
    threshold: float = 0.5  # κ, reward above which an answer is desirable; halfway between 0 and 1
    desirable: NonNegative = 1.0  # λ_D, weight; paper sec. 4
    undesirable: NonNegative = 1.0  # λ_U, weight; paper sec. 4

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "reference")

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Score the reference, and add z, the same for every row, [B]."""
        batch = batch.replace(logp_ref=models.reference.log_prob(batch))
        drift = batch.log_ratio_ref(models.policy.log_prob(batch)).sum(1)
        fresh = drift[~batch.extra["given"]]
        point = fresh.mean().clamp(min=0) if len(fresh) else drift.new_zeros(())
        return batch.with_extra(point=point.expand(len(batch)))

    def loss(self, models: Models, batch: Groups) -> Loss:
        good = batch.reward > self.threshold
        gain = batch.log_ratio_ref(models.policy.log_prob(batch)).sum(1) - batch.extra["point"]  # h − z, [B]
        weight = torch.where(good, self.desirable, self.undesirable).to(gain.dtype)
        value = torch.sigmoid(self.beta * torch.where(good, gain, -gain))
        return Loss(policy=batch.mean(weight * (1 - value))).log(
            value=batch.mean(value), point=batch.mean(batch.extra["point"]), desirable=batch.mean(good.to(gain.dtype)))
