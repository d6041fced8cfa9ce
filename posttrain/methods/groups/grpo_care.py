"""GRPO-CARE: a bonus for right answers that a slow copy of the policy finds likely after the reasoning before them.

    c_i = min( c_max, exp( 1/k Σ_{t > |y_i| − k} log π̄(y_it) ) )    the last k tokens stand for the answer
    S   = those with r_i > 0.1 and r_i ≥ mean r                     within the group of one prompt
    R_i = r_i + λ r_i where i ∈ S and c_i ≥ mean_S c − m, else r_i
    Â_i = (R_i − mean R) / (std R + 1e-4)
    L   = −mean_i 1/|y_i| Σ_t ρ_it Â_i,   π̄ ← π̄ + τ (π − π̄) after each step

A reward of the final answer alone teaches answers that do not follow from what is written before them.  The bonus
compares reasoning within a group, no judge says what is consistent, and it stands in the place of the KL term.

Deviations: the answer is what the authors find between two tags; here it is the last k of a row's decisions, whatever
they are, or all of a shorter row.  Their reward adds a format to the accuracy that S and the bonus look at; here one
reward is all three.  π̄ follows at 0.005 every ten steps there, here at a tenth of that every step.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Count, Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class GRPOCARE(Method[Groups]):
    paper = Paper("2506.16141", "Chen et al., 2025", parent="grpo")

    bonus: NonNegative = 0.5  # λ, share of the reward; released code
    answer_length: Count = 4  # k, decisions at the end of a row; assumed
    confidence_max: Fraction = 0.95  # c_max, probability; released code
    margin: NonNegative = 0.01  # m, probability; released code
    anchor_rate: Fraction = 5e-4  # τ, per step; released code, 0.005 every ten steps

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "anchor")

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Add the bonus, then hold each completion against its own group: reward [B] -> advantage [B]."""
        left = batch.mask.flip(1).cumsum(1).flip(1)  # decisions from here to the row's end
        answer = batch.mask & (left <= self.answer_length)
        logp = ops.sequence_log_ratio(models.anchor.log_prob(batch), answer)  # the mean over the answer, [B]
        confidence = logp.exp().clamp(max=self.confidence_max)
        bonus = torch.where(self._consistent(batch, confidence), self.bonus * batch.reward, 0.0)
        batch = batch.replace(advantage=ops.group_normalize(batch.reward + bonus, batch.group))
        return batch.with_extra(confidence=confidence, bonus=bonus)

    def _consistent(self, batch: Groups, confidence: Tensor) -> Tensor:
        """Who earns the bonus, [B] bool."""
        right = (batch.reward > 0.1) & (batch.reward >= ops.group_mean(batch.reward, batch.group))
        chosen = right.to(confidence)
        typical = ops.group_mean(chosen * confidence, batch.group) / ops.group_mean(chosen, batch.group).clamp(min=1e-9)
        return right & (confidence >= typical - self.margin)

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal rewards and bonuses pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        loss = Loss(policy=batch.mean(batch.mean_per_row(-ratio * batch.credit)))
        return loss.log(ratio=batch.mean(ratio), confidence=batch.mean(batch.extra["confidence"]),
                        bonus=batch.mean(batch.extra["bonus"]))

    def after_step(self, models: Models, metrics: Mapping[str, float]) -> None:
        ops.follow_(models.anchor.module, models.policy.module, self.anchor_rate)
