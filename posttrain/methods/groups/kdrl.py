"""KDRL: GRPO and distillation from a teacher on the same samples, the teacher's weight falling over training.

    Â_i  = (r_i − mean r) / (std r + 1e-4)                          within the group of one prompt
    ρ_it = π(y_it) / π_old(y_it)
    L    = −mean_it ρ_it Â_i + β_b mean_it m_i ½ (log π(y_it) − log π_T(y_it))²
    β_b  = β_0 + (β_1 − β_0) min(1, b / N)                          for batch b, from 0
    m_i  = 1, or 0 where y_i is right ("answer") or some answer to its prompt is ("prompt")

Under samples of π the gradient of the square is that of KL(π ‖ π_T) token by token; GRPO's k3 in its place has that of
the forward KL, and the log-ratio itself has none.  β = 0 is GRPO without KL or clipping; equal rewards leave on-policy
distillation.

Deviations: no code was released.  The schedule's length, N, is an assumption.  The paper's first form has no schedule
and no mask (β_0 = β_1); rewards of at least ½ are right.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Count, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class KDRL(Method[Groups]):
    paper = Paper("2506.02208", "Xu et al., 2025", parent="grpo")

    teacher_coef: NonNegative = 5e-3  # β_0, per nat², at first; paper
    teacher_coef_last: NonNegative = 1e-3  # β_1, per nat², at last; paper
    anneal_batches: Count = 100  # N, batches until β_1; assumed
    spared: Literal["none", "answer", "prompt"] = "none"  # what a right answer frees from the teacher; paper's variants

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "teacher")

    def initial_state(self) -> dict[str, float]:
        return {"batches": 0.0, "teacher_coef": self.teacher_coef}

    def prepare(self, models: Models, batch: Groups) -> Groups:
        state = models.state
        passed = min(1.0, state["batches"] / self.anneal_batches)
        state["teacher_coef"] = self.teacher_coef + (self.teacher_coef_last - self.teacher_coef) * passed
        state["batches"] += 1
        batch = batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))
        taught = self._taught(batch)[:, None].expand(batch.mask.shape)
        return batch.with_extra(logp_teacher=models.teacher.log_prob(batch), taught=taught)

    def _taught(self, batch: Groups) -> Tensor:
        """m, [B]."""
        right = (batch.reward >= 0.5).to(batch.reward)
        if self.spared == "none":
            return torch.ones_like(right)
        return 1 - right if self.spared == "answer" else (ops.group_mean(right, batch.group) == 0).to(right)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        ratio = batch.log_ratio(logp).exp()
        gap = torch.where(batch.mask, logp - batch.extra["logp_teacher"], 0.0)
        kd = models.state["teacher_coef"] * batch.extra["taught"] * ops.k2(gap)
        loss = Loss(policy=batch.mean(-ratio * batch.credit), teacher=batch.mean(kd))
        return loss.log(ratio=batch.mean(ratio), reverse_kl=batch.mean(gap))
