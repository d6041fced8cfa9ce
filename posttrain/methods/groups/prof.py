"""PROF: a scorer of steps only chooses which samples to learn from, those on which it and the outcome agree.

    drop R = round(κ n) of a prompt's n samples:
        k = round( (n₊ − n₋ + R) / 2 ), within 0 … R and n₊ and at least R − n₋: the right ones of lowest s
        R − k: the wrong ones of highest s                          s_i: what the scorer says of y_i, r_i ≥ ½ is right
    Â_i  = (r_i − mean r) / (std r + 1e-4)                          over what is kept
    ρ_it = π(y_it) / π_old(y_it)
    L    = −mean_i 1/|y_i| Σ_t min( ρ_it Â_i, clip(ρ_it, 1 − ε, 1 + ε) Â_i ) + β mean_i 1/|y_i| Σ_t k3_it

A right answer with bad steps and a wrong one with good steps teach the opposite of what they should.  The scorer's
number is never a reward, so it cannot be gamed through the gradient, and the cut leaves right and wrong as even as it
can.  κ = 0 is GRPO.

Deviations: samples of equal s at the edge of the cut share its places, the mean over random choices.  The authors
average a reward model's numbers over steps and count answers of one step, or of more than thirty, as inconsistent; here
s is whatever the task's scorer of steps says.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper
from posttrain.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PROF(Method[Groups]):
    paper = Paper("2509.03403", "Ye et al., 2025", parent="grpo")

    dropped_share: Fraction = 0.5  # κ, share of a prompt's samples; released scripts, 4 of 8
    clip_range: Fraction = 0.2  # ε, per token; released scripts
    kl_coef: NonNegative = 0.001  # β, nats; released scripts

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "reference") if self.kl_coef else ("policy",)

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """reward, process [B] -> advantage [B] and, in `extra`, kept [B]: the weight of each row in the mean.

        Raises:
            UserError: if the task has no scorer of steps.
        """
        if "process" not in batch.extra:
            raise UserError("method = 'prof': the task has no scorer of steps, which prof chooses samples by")
        kept = self._kept(batch, batch.extra["process"])
        batch = batch.replace(advantage=normalize(batch.reward, kept, batch.group)).with_extra(kept=kept)
        return batch.replace(logp_ref=models.reference.log_prob(batch)) if self.kl_coef else batch

    def _kept(self, batch: Groups, score: Tensor) -> Tensor:
        right, kept = batch.reward >= 0.5, torch.ones_like(batch.reward)
        for unit in batch.group.unique():
            good = (right & (batch.group == unit)).nonzero()[:, 0]
            bad = (~right & (batch.group == unit)).nonzero()[:, 0]
            drop = round(self.dropped_share * (len(good) + len(bad)))
            k = max(0, drop - len(bad), min(drop, len(good), round((len(good) - len(bad) + drop) / 2)))
            kept[good] = 1 - ops.lowest(score[good].to(kept), k)
            kept[bad] = 1 - ops.lowest(-score[bad].to(kept), drop - k)
        return kept

    def silent(self, batch: Groups) -> Tensor:
        """What is dropped; without the KL term also a group whose kept rewards are equal."""
        return batch.extra["kept"].eq(0) if self.kl_coef else batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        ratio = batch.log_ratio(logp).exp()
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_range, self.clip_range)
        loss = Loss(policy=batch.mean(batch.mean_per_row(-gain), weight="kept"))
        if self.kl_coef:
            kl = self.kl_coef * ops.k3(batch.log_ratio_ref(logp))
            loss.add(kl=batch.mean(batch.mean_per_row(kl), weight="kept"))
        return loss.log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))


def normalize(reward: Tensor, weight: Tensor, group: Tensor) -> Tensor:
    """`ops.group_normalize` of rewards that count with a weight in [0, 1], [B]; 0 where the weight is."""
    own, some = weight > 0, ops.group_mean(weight, group).clamp(min=1e-9)
    centred = torch.where(own, reward - ops.group_mean(torch.where(own, weight * reward, 0.0), group) / some, 0.0)
    count = some * ops.group_size(group)
    variance = ops.group_mean(weight * centred**2, group) / some * count / (count - 1).clamp(min=1)
    equal = torch.ones_like(own)
    equal[own] = ops.is_constant(reward[own], group[own])
    return torch.where(equal, 0.0, centred / (variance.sqrt() + 1e-4))
