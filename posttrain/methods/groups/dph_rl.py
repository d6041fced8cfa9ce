"""DPH-RL: rehearse samples of the initial policy under the forward KL, which covers all of its modes.

    u_it = π(y_it) / π_0(y_it)                            over rehearsed tokens, those that π_0 sampled
    L    = −mean_it min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i ) + η mean_it ( u_it − 1 − log u_it )

GRPO's KL(π ‖ π_ref) on fresh samples lets modes die that π no longer visits.  u − 1 − log u under samples of π_0 is
unbiased for KL(π_0 ‖ π), which is infinite when a mode dies, and needs no reference network.

Decisions of version 0 are those that π_0 sampled: a batch that is to be rehearsed holds some, each prompt a group
of its own, so that their advantage is 0.

Deviations: of the paper's divergences this is the forward KL.  The authors sample eight answers a prompt beforehand,
rehearse those of prompts solved reliably and explore on the others; which rows are mixed in is the data's business.
π_0 is what the sampler recorded, theirs is scored anew.  Their two terms are averages over batches of one kind each.
"""

from dataclasses import dataclass

import torch

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class DPHRL(Method[Groups]):
    paper = Paper("2509.07430", "Li et al., 2025", parent="dapo")

    rehearsal_coef: NonNegative = 0.01  # η, nats; released script, 0.01 to 0.05
    clip_low: Fraction = 0.2  # ε_low, per token; DAPO
    clip_high: NonNegative = 0.28  # ε_high, per token; DAPO

    def prepare(self, models: Models, batch: Groups) -> Groups:
        rehearsed = (batch.mask & (batch.version == 0)).to(batch.reward.dtype)  # [B, T]
        batch = batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))
        return batch.with_extra(rehearsed=rehearsed)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        ratio = batch.log_ratio(logp).exp()
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        moved = torch.where(batch.mask, batch.logp_behaviour - logp, 0.0)  # −log u where rehearsed
        kl = batch.mean(self.rehearsal_coef * ops.k3(moved), weight="rehearsed")
        return Loss(policy=batch.mean(-gain), rehearsal=kl).log(
            ratio=batch.mean(ratio), clipped=batch.mean(clipped), rehearsed=batch.mean(batch.extra["rehearsed"]))
