"""CoPG: each answer's reward, less its drift from the reference, is the baseline of the others of its prompt.

    R_i = r_i − β log( π(y_i) / π_ref(y_i) )                                 of whole answers
    L   = −mean_i sg( R_i − mean of the others' R_j ) log π(y_i)

The gradient is that of (R_i − R_j)² / 4β averaged over pairs, and so 0 wherever R is equal within a prompt: the
optimum π ∝ π_ref exp(r / β), whoever sampled the answers.  No ratio to the sampler is needed.  On fresh answers it is
RLOO with the KL in the reward; r = ±1/4 gives IPO.

Deviations: mechanism from memory and the abstract.  The paper has pairs; a larger group is all of its pairs, and the
sum is divided by the number of answers.  β is ours.
"""

from dataclasses import dataclass

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class CoPG(Method[Groups]):
    paper = Paper("2406.19185", "Flet-Berliac et al., 2024", parent="rloo")
    couples_rows = True

    kl_coef: Positive = 0.1  # β, reward per nat; ours

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "reference")

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """The part of the contrast that does not move with the policy: reward [B] -> advantage [B]."""
        batch = batch.replace(advantage=ops.leave_one_out(batch.reward, batch.group))
        return batch.replace(logp_ref=models.reference.log_prob(batch))

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        drift = batch.log_ratio_ref(logp).sum(1)  # [B]
        contrast = batch.credit[:, 0] - self.kl_coef * ops.leave_one_out(drift.detach(), batch.group)
        return Loss(policy=batch.mean(-contrast * logp.sum(1))).log(drift=batch.mean(drift))
