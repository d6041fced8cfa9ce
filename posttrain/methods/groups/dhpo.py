"""DHPO: mix the ratio of each token with that of the whole sequence, each clipped in its own range.

    ρ_it = π(y_it) / π_old(y_it),  s_i = exp( 1/|y_i| Σ_t log ρ_it )
    L    = −mean_i [ m · 1/|y_i| Σ_t min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i )
                     + (1 − m) · min( s_i Â_i, clip(s_i, 1 − δ_low, 1 + δ_high) Â_i ) ]

m = 1 is GRPO without its KL term and m = 0 is GSPO.  At π = π_old the gradient does not depend on m.

Deviations: mechanism from the abstract.  Of its two mixings this is the constant one; how the other maps a token's
entropy to m is not known.  Each side keeps PPO's minimum, so a ratio is clipped only where that lowers the gain.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class DHPO(Method[Groups]):
    paper = Paper("2601.05607", "Min et al., 2026", parent="gspo")

    token_share: Fraction = 0.5  # m; the averaged mixing
    clip_low: Fraction = 0.2  # ε_low, per token; PPO's default
    clip_high: NonNegative = 0.2  # ε_high, per token; PPO's default
    sequence_clip_low: Fraction = 3e-4  # δ_low, per sequence; GSPO sec. 5.1
    sequence_clip_high: NonNegative = 4e-4  # δ_high, per sequence; GSPO sec. 5.1

    def prepare(self, models: Models, batch: Groups) -> Groups:
        return batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))

    def silent(self, batch: Groups) -> Tensor:
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        log_ratio = batch.log_ratio(models.policy.log_prob(batch))  # [B, T]
        whole = ops.sequence_log_ratio(log_ratio, batch.mask).exp()  # [B]
        token_gain, token_clipped = ops.clipped_gain(
            log_ratio.exp(), batch.credit, self.clip_low, self.clip_high)
        row_gain, row_clipped = ops.clipped_gain(
            whole, batch.credit[:, 0], self.sequence_clip_low, self.sequence_clip_high)
        gain = self.token_share * batch.mean_per_row(token_gain) + (1 - self.token_share) * row_gain
        return Loss(policy=batch.mean(-gain)).log(
            ratio=batch.mean(whole), clipped=batch.mean(token_clipped), sequences_clipped=batch.mean(row_clipped))
