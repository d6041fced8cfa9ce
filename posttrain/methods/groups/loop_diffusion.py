"""LOOP: PPO's clip on denoising steps, against the mean reward of the prompt's other pictures.

    Â_i  = r_i − 1/(n − 1) Σ_{j ≠ i} r_j                            within the group of one prompt
    ρ_it = π(x_{t−1} | x_t) / π_old(x_{t−1} | x_t)
    L    = −mean_i Σ_t min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i )

Several pictures a prompt and RLOO's baseline take the variance out of DDPO, and its clip keeps batches usable twice.
At one update a batch it is RLOO without KL.

Deviations: none known; a group of one gets no gradient.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class LoopDiffusion(Method[Groups]):
    paper = Paper("2503.00897", "Gupta et al., 2025", parent="rloo")

    clip_low: Fraction = 1e-4  # ε_low, per step; DDPO's
    clip_high: NonNegative = 1e-4  # ε_high, per step; DDPO's

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Hold each picture against the others of its group: reward [B] -> advantage [B]."""
        return batch.replace(advantage=ops.leave_one_out(batch.reward, batch.group))

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal rewards pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        loss = Loss(policy=batch.mean((-gain * batch.mask).sum(1)))
        return loss.log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))
