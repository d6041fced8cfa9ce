"""Think-RM's pairwise RLHF: a judge's verdicts on pairs become advantages without a scalar reward between them.

    d_ij = 1 where y_i is judged better than y_j, −1 where worse, 0 where alike          within the group of one prompt
    s²   = Σ_ij d_ij² / ( 2 G (G − 1) )
    Â_i  = 1/G Σ_j d_ij / √( s² + 1e-6 )
    L    = −mean_it [ min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i ), never below c Â_i where Â_i < 0 ]

Fitting a reward to verdicts first loses their strength and invents a scale.  With d_ij = r_i − r_j, s is the sample
standard deviation and this is GRPO's advantage; with verdicts alone, it is a standardised count of wins.

Deviations: the verdicts are read off the task's reward, so they never contradict one another as a judge's may; a judge
of pairs is a reward of its own.  The training of that judge is GRPO on whether it agrees with people.  ε is verl's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class ThinkRM(Method[Groups]):
    paper = Paper("2505.16265", "Hong et al., 2025", parent="grpo")

    clip_low: Fraction = 0.2  # ε_low, per token; verl's default
    clip_high: NonNegative = 0.2  # ε_high, per token; verl's default
    bound: Positive = 3.0  # c, of Â where it is negative; verl's default

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Judge every pair of a group: reward [B] -> advantage [B]."""
        verdict = (batch.reward[:, None] - batch.reward).sign() * (batch.group[:, None] == batch.group)
        return batch.replace(advantage=from_verdicts(verdict, batch.group))

    def silent(self, batch: Groups) -> Tensor:
        """As many wins as losses pull in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        _, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        gain = ops.dual_clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high, self.bound)
        return Loss(policy=batch.mean(-gain)).log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))


def from_verdicts(verdict: Tensor, group: Tensor) -> Tensor:
    """Â of verdicts d [B, B], antisymmetric and 0 between groups: group [B] -> [B]; 0 for a group of one."""
    size = ops.group_size(group)
    variance = ops.group_mean((verdict**2).sum(1), group) / (2 * (size - 1).clamp(min=1))
    advantage: Tensor = verdict.sum(1) / size / torch.sqrt(variance + 1e-6)
    return advantage
