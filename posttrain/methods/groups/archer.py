"""Archer: a loose clip for a response's uncertain tokens, a tight one and a KL term for its confident tokens.

    τ_i  = q-quantile of the entropies H_i1 … H_i|y_i| of one response;  a token reasons where H_it > τ_i
    ε_it = ε_r, β_it = β_r where it reasons;  ε_k, β_k where it only recalls
    L    = −mean_it [ min( ρ_it Â_i, clip(ρ_it, 1 − ε_it, 1 + ε_it) Â_i ) − β_it k3_it ]

All tokens are updated together; GRPO with one ε and one β for all is the case ε_r = ε_k, β_r = β_k, but for the
mean over all tokens instead of within each response.

Deviations: the split is made before a batch's first update, in the released code at every one.  That code averages
the KL over recalling tokens alone, 1/q times as strong, and bounds the loss of Â < 0 by a dual clip at 10.  Its
variable high_entropy_mask holds the tokens of low entropy; which of them get the loose clip is as here.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class Archer(Method[Groups]):
    paper = Paper("2507.15778", "Wang et al., 2025", parent="dapo")

    quantile: Fraction = 0.8  # q, of one response's entropies; released script
    clip_reasoning: Fraction = 0.5  # ε_r, per token, both sides; released script
    clip_knowledge: Fraction = 0.2  # ε_k, per token, both sides; released script
    kl_reasoning: NonNegative = 0.0  # β_r, nats; released script
    kl_knowledge: NonNegative = 0.001  # β_k, nats; released script

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "reference") if self.kl_reasoning or self.kl_knowledge else ("policy",)

    def prepare(self, models: Models, batch: Groups) -> Groups:
        entropy = models.policy.score(batch, entropy=True).entropy  # [B, T]
        batch = batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))
        batch = batch.with_extra(reasons=above_quantile(entropy, batch.mask, self.quantile))
        return batch.replace(logp_ref=models.reference.log_prob(batch)) if "reference" in self.needs else batch

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp, reasons = models.policy.log_prob(batch), batch.extra["reasons"]
        ratio = batch.log_ratio(logp).exp()
        loose, _ = ops.clipped_gain(ratio, batch.credit, self.clip_reasoning, self.clip_reasoning)
        tight, _ = ops.clipped_gain(ratio, batch.credit, self.clip_knowledge, self.clip_knowledge)
        loss = Loss(policy=batch.mean(-torch.where(reasons, loose, tight)))
        if "reference" in self.needs:
            kl = ops.k3(batch.log_ratio_ref(logp))
            loss.add(kl=batch.mean(torch.where(reasons, self.kl_reasoning, self.kl_knowledge) * kl))
        return loss.log(ratio=batch.mean(ratio), reasons=batch.mean(reasons.to(ratio.dtype)))


def above_quantile(x: Tensor, mask: Tensor, quantile: float) -> Tensor:
    """[B, T] bool: whether x is above that quantile of its own row's decisions; False where masked."""
    threshold = x.masked_fill(~mask, torch.nan).nanquantile(quantile, dim=1, keepdim=True)
    return mask & (x > threshold)
