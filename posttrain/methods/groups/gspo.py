"""GSPO: clip one importance ratio per sequence, not one per token.

    Â_i = (r_i − mean r) / (std r + 1e-4)                           within the group of one prompt
    s_i = exp( 1/|y_i| Σ_t [ log π(y_it) − log π_old(y_it) ] )
    L   = −mean_i min( s_i Â_i, clip(s_i, 1 − ε_low, 1 + ε_high) Â_i )

s_i is a geometric mean over tokens, so ε is hundreds of times smaller than PPO's; a completion is clipped whole or not
at all.  At π = π_old the gradient is GRPO's.  No KL term.

Deviations: the paper takes four updates from each batch; with `epochs` and `minibatches` at 1, the default of every
method here, the ratio is always 1 and GSPO is GRPO without KL.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class GSPO(Method[Groups]):
    paper = Paper("2507.18071", "Zheng et al., 2025", parent="grpo")

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
        ratio = ops.sequence_log_ratio(log_ratio, batch.mask).exp()  # [B]
        gain, clipped = ops.clipped_gain(ratio, batch.credit[:, 0], self.clip_low, self.clip_high)
        return Loss(policy=batch.mean(-gain)).log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))
