"""Critique-GRPO: beside its own samples the policy learns refinements of them, rare but plausible tokens first.

    Â_i  = r_i − mean r                                             over samples and refinements of one prompt
    g_it = π(y_it) / π_old(y_it)                                    for a sample, unclipped
    g_it = f(π(y_it)),  f(p) = p / (p + γ)                          for a refinement
    L    = −mean_i 1/L_max Σ_t g_it Â_i − η mean_it H_it            H_it: entropy at the token

A refinement is what the policy answers when it is shown a failed attempt and a critique of it; it is trained on the
prompt alone, where the policy might never find it.  df/dlog p = γ p / (p + γ)² is largest at p = γ and falls towards
p = 1, so tokens that the policy is sure of teach little and improbable ones are not drowned.  No KL term.

Refinements are the rows that were given: the task brings them beside the prompt.

Deviations: the authors refine anew at every step and put the best refinement of a prompt in the place of one of eight
samples; here refinements were made beforehand, by this policy or a better one, and stand beside all samples.  L_max is
the source's limit; theirs is the width of the padded batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, NonNegative, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class CritiqueGRPO(Method[Groups]):
    paper = Paper("2506.03106", "Zhang et al., 2025", parent="dr_grpo")
    learns_from = "both"

    half_at: Positive = 0.1  # γ, probability at which f is one half; released script
    entropy_coef: NonNegative = 0.001  # η, per nat; released script

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Hold each answer against its group's mean: reward [B] -> advantage [B]."""
        return batch.replace(advantage=ops.group_center(batch.reward, batch.group))

    def silent(self, batch: Groups) -> Tensor:
        """Without the entropy bonus a group of equal rewards pulls in no direction."""
        return torch.zeros(len(batch), dtype=torch.bool) if self.entropy_coef else batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        score = models.policy.score(batch, entropy=bool(self.entropy_coef))
        given = batch.extra["given"]
        chance = score.log_prob.exp()  # [B, T]
        shaped, ratio = chance / (chance + self.half_at), batch.log_ratio(score.log_prob).exp()
        gain = torch.where(given[:, None], shaped, ratio) * batch.credit
        total = torch.where(batch.mask, gain, 0.0).sum(1)  # [B]
        loss = Loss(policy=batch.mean(-total / batch.limit))
        if self.entropy_coef:
            loss.add(entropy=batch.mean(-self.entropy_coef * score.entropy)).log(entropy=batch.mean(score.entropy))
        return loss.log(ratio=batch.mean(ratio), given=batch.mean(given.to(gain.dtype)))
