"""GSPO-token: GSPO's clip by sequence, with an advantage that may differ from token to token.

    s_i  = exp( 1/|y_i| Σ_t [ log π(y_it) − log π_old(y_it) ] )
    s_it = sg(s_i) π(y_it) / sg(π(y_it))
    L    = −mean_i 1/|y_i| Σ_t min( s_it Â_it, clip(s_it, 1 − ε_low, 1 + ε_high) Â_it )

s_it has the value of the whole sequence's ratio and the gradient of the token's own log-probability.  Where a
completion's tokens share one advantage, value and gradient are GSPO's.

Deviations: the paper leaves Â_it open; here it is GSPO's (r_i − mean r) / (std r + 1e-4), the same for every token,
so that the method differs from `gspo` only once something gives it credit by token.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class GSPOToken(Method[Groups]):
    paper = Paper("2507.18071", "Zheng et al., 2025", parent="gspo")

    clip_low: Fraction = 3e-4  # ε_low, per sequence; paper sec. 5.1
    clip_high: NonNegative = 4e-4  # ε_high, per sequence; paper sec. 5.1

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Hold each completion against its own group: reward [B] -> advantage [B]."""
        return batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal rewards pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        log_ratio = batch.log_ratio(models.policy.log_prob(batch))  # [B, T]
        sequence = ops.sequence_log_ratio(log_ratio, batch.mask).exp()  # [B]
        ratio = ops.straight_through(sequence[:, None], log_ratio)  # [B, T]
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        loss = Loss(policy=batch.mean(batch.mean_per_row(-gain)))
        return loss.log(ratio=batch.mean(sequence), clipped=batch.mean(batch.mean_per_row(clipped)))
