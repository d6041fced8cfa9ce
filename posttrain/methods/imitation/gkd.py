"""GKD: match the teacher's whole distribution, on the student's own answers as well as on given ones.

    P = π_T( · | y_<t),  Q = π( · | y_<t),  M = β P + (1 − β) Q
    D_it = β KL(P ‖ M) + (1 − β) KL(Q ‖ M)                          the generalised Jensen–Shannon divergence
    D_it = KL(P ‖ Q) for β = 0,  KL(Q ‖ P) for β = 1                the limits of D / β and D / (1 − β)
    L    = λ mean over sampled tokens of D + (1 − λ) mean over given tokens of D

Distillation on given answers alone never sees the prefixes that the student makes in use; on its own samples it does,
and no gradient runs through the sampling.  β moves from covering all that the teacher does to seeking its modes.

Deviations: λ is the chance that a batch is sampled in the paper; here each step holds both kinds and λ weighs them.
At exactly 0 and 1 the paper's divergence is 0; as in TRL the limits stand there.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.core import Fraction, Groups, Loss, Method, Models, Paper, compare


@dataclass(frozen=True, kw_only=True)
class GKD(Method[Groups]):
    paper = Paper("2306.13649", "Agarwal et al., 2023", parent="sft")
    learns_from = "both"

    mixture: Fraction = 0.5  # β, the teacher's share of M; TRL, the paper's best differs by task, 0 to 1
    on_policy: Fraction = 0.5  # λ, weight of the sampled tokens; TRL, the paper has 0, 0.5 and 1

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "teacher")

    def prepare(self, models: Models, batch: Groups) -> Groups:
        given = batch.extra["given"][:, None].expand(batch.mask.shape).to(batch.reward)
        return batch.with_extra(shown=given, sampled=1 - given)

    def silent(self, batch: Groups) -> Tensor:
        """At λ = 1 what was given has no weight, at λ = 0 what was sampled."""
        given = batch.extra["given"]
        return given & (self.on_policy == 1) | ~given & (self.on_policy == 0)

    def loss(self, models: Models, batch: Groups) -> Loss:
        divergence = compare(models.policy, models.teacher, batch, self._divergence)  # [B, T]
        loss = Loss(sampled=batch.mean(self.on_policy * divergence, weight="sampled"),
                    given=batch.mean((1 - self.on_policy) * divergence, weight="shown"))
        return loss.log(divergence=batch.mean(divergence))

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """D of log-probabilities [m, V] -> [m]."""
        if self.mixture == 0:
            return kl(teacher, student)
        if self.mixture == 1:
            return kl(student, teacher)
        mixed = torch.logaddexp(teacher + math.log(self.mixture), student + math.log1p(-self.mixture))
        return self.mixture * kl(teacher, mixed) + (1 - self.mixture) * kl(student, mixed)


def kl(logp: Tensor, logq: Tensor) -> Tensor:
    """KL(p ‖ q) over the last dimension."""
    return (logp.exp() * (logp - logq)).sum(-1)
