"""DanceGRPO: GRPO on denoising steps, groups that begin as one noise, and only some steps of each picture learnt.

    Â_i  = clip( (r_i − mean r) / (std r + 1e-8), −A, A )           within the group of one prompt
    ρ_it = π(x_{t−1} | x_t) / π_old(x_{t−1} | x_t)
    L    = −mean_i 1/|S_i| Σ_{t ∈ S_i} min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i )

Pictures of one prompt that begin apart differ by luck that no step can be praised for, so a group shares its noise.
S_i, six of ten steps drawn for each picture, is what the gradient needs.  Both are options of the source, whose
defaults this method changes for pictures.

Deviations: several rewards are one advantage each and then summed in the paper; here the task gives one.  The paper's
SDE has σ constant, here it is the sampler's own.  Equal rewards give exactly 0.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper, Positive, by_kind


@dataclass(frozen=True, kw_only=True)
class DanceGRPO(Method[Groups]):
    paper = Paper("2505.07818", "Xue et al., 2025", parent="grpo")
    defaults = by_kind(pictures={"shared_start": True, "step_share": 0.6})

    clip_low: Fraction = 1e-4  # ε_low, per step; released default
    clip_high: NonNegative = 1e-4  # ε_high, per step; released default
    max_advantage: Positive = 5.0  # A, deviations; released default

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Hold each picture against its own group: reward [B] -> advantage [B]."""
        advantage = ops.group_normalize(batch.reward, batch.group, 1e-8)
        return batch.replace(advantage=advantage.clamp(-self.max_advantage, self.max_advantage))

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal rewards pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        loss = Loss(policy=batch.mean(batch.mean_per_row(-gain)))
        return loss.log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))
