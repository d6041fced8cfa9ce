"""CJ-GRPO: score every token under exactly the half-masked text in which the sampler decided it.

    log π(y_j) = log p(y_j | x^s),  j ∈ U_s                    x^s: the canvas before pass s, U_s: what pass s decided
    ρ_j        = exp( log π(y_j) − log π_old(y_j) )
    Â_i        = r_i − mean r                                  within the group of one prompt
    L          = mean_i 1/S_i Σ_s 1/|U_s| Σ_{j ∈ U_s} [ −min( ρ_j Â_i, clip(ρ_j, 1 − ε, 1 + ε) Â_i ) + β k3_j ]

Sampling and scoring walk the same trajectory, so nothing is estimated: before the first update the score of a token is
the very log-probability that the sampler recorded.  With one token a pass from left to right it is GRPO without the
division by the spread.

Deviations: tokens beyond a completion's first end token are no decisions, and a pass that decided none other does not
count in S; in the authors' code both count.  The reference is the initial policy throughout; the authors replace it
every 64 steps.  Their samplers that reject early end tokens (EOSER) and unmask 2^s tokens in pass s (ASS) are left out.
Where a batch does not tell in which pass a decision was made, each is a pass of its own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper
from posttrain.core.method import by_kind


@dataclass(frozen=True, kw_only=True)
class CJGRPO(Method[Groups]):
    paper = Paper("2509.23924", "Yang, Chen, Hu & Shao, 2025", parent="d1")
    likelihood = "trajectory"
    defaults = by_kind(masked={"epochs": 12})  # the authors' train.yaml; 8 for countdown and sudoku

    clip: Fraction = 0.5  # ε, per token; the authors' train.yaml
    kl_coef: NonNegative = 0.04  # β, nats; the authors' train.yaml

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "reference") if self.kl_coef else ("policy",)

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """reward [B] -> advantage [B]; each decision's share of its row, 1 / (S |U_s|) [B, T]."""
        when = batch.extra.get("when", torch.arange(batch.mask.shape[1]).expand(batch.mask.shape))
        batch = batch.replace(advantage=ops.group_center(batch.reward, batch.group))
        batch = batch.with_extra(share=ops.pass_share(when, batch.mask).to(batch.reward.dtype))
        return batch.replace(logp_ref=models.reference.log_prob(batch)) if self.kl_coef else batch

    def silent(self, batch: Groups) -> Tensor:
        """Without the KL term a group of equal rewards pulls in no direction."""
        return torch.zeros(len(batch), dtype=torch.bool) if self.kl_coef else batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp, share = models.policy.log_prob(batch), batch.extra["share"]  # [B, T]
        ratio = batch.log_ratio(logp).exp()
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip, self.clip)
        loss = Loss(policy=batch.mean(torch.where(batch.mask, -gain * share, 0.0).sum(1)))
        if self.kl_coef:
            kl = ops.k3(batch.log_ratio_ref(logp))
            loss.add(kl=batch.mean(self.kl_coef * torch.where(batch.mask, kl * share, 0.0).sum(1)))
            loss.log(kl=batch.mean(kl))
        return loss.log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))
