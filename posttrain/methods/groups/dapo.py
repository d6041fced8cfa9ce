"""DAPO: GRPO with a wider upper clip, one mean over all tokens, and a soft penalty on overlong answers.

    R_i  = r_i + clip( (L_max − L_cache − |y_i|) / L_cache, −1, 0 ), or r_i − 1 if y_i was cut off
    Â_i  = (R_i − mean R) / (std R + 1e-4)                          within the group of one prompt
    ρ_it = π(y_it) / π_old(y_it)
    L    = −mean_it min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i )

ε_high > ε_low leaves unlikely tokens room to grow, a mean over tokens lets long answers weigh by their length, and the
penalty ramps up over the last L_cache tokens before the limit.  No KL term.

Deviations: dynamic sampling, which draws further prompts until a batch is full of groups with unequal rewards, belongs
to the source of samples: `--dynamic-sampling K` draws at most K batches.  The default, 1, takes the first as it is: its
groups of equal rewards add no gradient, but their tokens still count in the mean.
|y_i| counts the policy's own tokens only, not a tool's.  L_max is the source's limit, L_cache a share of it.  1e-4 and
exactly 0 for equal rewards are as in `grpo`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class DAPO(Method[Groups]):
    paper = Paper("2503.14476", "Yu et al., 2025", parent="grpo")

    clip_low: Fraction = 0.2  # ε_low, per token; paper sec. 4.1
    clip_high: NonNegative = 0.28  # ε_high, per token; paper sec. 4.1
    cache_share: Fraction = 0.2  # L_cache / L_max; paper sec. 4.1, 4096 of 20480

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Penalise overlong completions, then hold each against its own group: reward [B] -> advantage [B]."""
        penalty = self._penalty(batch)
        advantage = ops.group_normalize(batch.reward + penalty, batch.group)
        return batch.replace(advantage=advantage).with_extra(overlong=penalty)

    def _penalty(self, batch: Groups) -> Tensor:
        """−1 where cut off or beyond the limit, rising to 0 at L_max − L_cache, [B]."""
        cache = max(self.cache_share * batch.limit, 1e-9)
        left = batch.limit - batch.mask.sum(1).to(batch.reward)
        return torch.where(batch.finished, (left / cache - 1).clamp(-1, 0), -1.0)

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal rewards pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        loss = Loss(policy=batch.mean(-gain)).log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))
        return loss.log(overlong=batch.mean(batch.extra["overlong"]))
