"""DDPO: denoising as a decision process, PPO's clip on every step, rewards normalised for each prompt.

    Â_i  = clip( (r_i − mean r) / (std r + 1e-6), −A, A )           within the group of one prompt
    ρ_it = π(x_{t−1} | x_t) / π_old(x_{t−1} | x_t)
    L    = −mean_it min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i )

A picture's likelihood is out of reach, that of each step by which it came out of noise is a Gaussian's.  This is the
paper's DDPO_IS; at one update a batch it is DDPO_SF, REINFORCE.  Nothing here asks for pictures: other policies' steps
are tokens and actions.

Deviations: the authors normalise by the last 16 rewards of a prompt, over batches, and by the whole batch's until there
are 16; a group holds that many here, and only they count.  Equal rewards give exactly 0.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class DDPO(Method[Groups]):
    paper = Paper("2305.13301", "Black et al., 2023", parent="reinforce")

    clip_low: Fraction = 1e-4  # ε_low, per step; paper app. D, as released
    clip_high: NonNegative = 1e-4  # ε_high, per step; paper app. D, as released
    max_advantage: Positive = 10.0  # A, deviations; released default

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Hold each picture against its own prompt's, by the population's deviation: reward [B] -> advantage [B]."""
        centred = ops.group_center(batch.reward, batch.group)
        spread = ops.group_mean(centred**2, batch.group).sqrt() + 1e-6
        return batch.replace(advantage=(centred / spread).clamp(-self.max_advantage, self.max_advantage))

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal rewards pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        return Loss(policy=batch.mean(-gain)).log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))
