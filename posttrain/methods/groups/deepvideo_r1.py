"""DeepVideo-R1's Reg-GRPO: fit the group's standardised log-ratios to its standardised rewards by least squares.

    h_i = log π(y_i) − log π_old(y_i)                                        of whole answers
    Â_i = (r_i − mean r) / (std r + 1e-4)                                    within the group of one prompt
    Ĥ_i = (h_i − mean h) / √( var h + ε² )
    L   = mean_i ( Â_i − Ĥ_i )² + β mean_it k3_it

The optimum of r − β KL(π ‖ π_old) has r = β h + β log Z(x); standardising both sides removes log Z and β, so neither
has to be known, and the target bounds the step where GRPO needs clip and min.  k3 as in GRPO.

Deviations: mechanism from a summary of the paper, which prints the KL with the sign that would reward it.  At
π = π_old all h are 0 and the paper's ratio is 0/0; ε makes it smooth, and below ε nats the loss is REBEL's with
η = ε.  ε is ours, β GRPO's.  Making a prompt harder or easier by noise in the video or by hints changes the task's
prompts and is not here.
"""

from dataclasses import dataclass

import torch

from posttrain import ops
from posttrain.core import Count, Groups, Loss, Method, Models, NonNegative, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class DeepVideoR1(Method[Groups]):
    paper = Paper("2506.07464", "Park et al., 2025", parent="grpo")
    couples_rows = True

    epochs: Count = 4  # passes over each batch; ours
    floor: Positive = 0.01  # ε, nats; ours
    kl_coef: NonNegative = 0.04  # β, per nat; GRPO's

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "reference") if self.kl_coef else ("policy",)

    def prepare(self, models: Models, batch: Groups) -> Groups:
        batch = batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))
        return batch.replace(logp_ref=models.reference.log_prob(batch)) if self.kl_coef else batch

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        change = batch.log_ratio(logp).sum(1)  # h, [B]
        centred, size = change - ops.group_mean(change, batch.group), ops.group_size(batch.group)
        variance = ops.group_mean(centred**2, batch.group) * size / (size - 1).clamp(min=1)
        fitted = centred / torch.sqrt(variance + self.floor**2)
        loss = Loss(policy=batch.mean((batch.credit[:, 0] - fitted) ** 2)).log(change=batch.mean(change))
        if self.kl_coef:
            kl = ops.k3(batch.log_ratio_ref(logp))
            loss.add(kl=batch.mean(self.kl_coef * kl)).log(kl=batch.mean(kl))
        return loss
