"""CISPO: clip the weight of a token's gradient and never the gradient itself.

    Â_i  = (r_i − mean r) / (std r + 1e-4)                          within the group of one prompt
    w_it = sg( clip(π(y_it) / π_old(y_it), 1 − ε_low, 1 + ε_high) )
    L    = −mean_it w_it Â_i log π(y_it)

PPO's clip silences a token once its ratio has left the range, and rare, decisive tokens leave it first; here such a
token still learns, with a bounded weight.  No KL term.

Deviations: the bounds are distances from 1, as in the paper: TRL clips at ε_high itself.  The paper sets no lower
bound, which is ε_low = 1, and (from memory) gives no ε_high; 4 caps the weight at 5, as ScaleRL (2510.13786) does.
1e-4 and exactly 0 for equal rewards are as in `grpo`.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class CISPO(Method[Groups]):
    paper = Paper("2506.13585", "MiniMax, 2025", parent="grpo")

    clip_low: Fraction = 1.0  # ε_low, per token; 1 is no lower bound, as in the paper
    clip_high: NonNegative = 4.0  # ε_high, per token; ScaleRL's cap of 5, the paper gives none

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Hold each completion against its own group: reward [B] -> advantage [B]."""
        return batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal rewards pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        ratio = batch.log_ratio(logp).exp()
        weight = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        loss = Loss(policy=batch.mean(-ops.weighted_log_prob(weight, batch.credit, logp)))
        return loss.log(ratio=batch.mean(ratio), clipped=batch.mean((weight != ratio).to(ratio.dtype)))
