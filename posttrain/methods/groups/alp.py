"""ALP: a token costs the more, the more often its prompt is solved, so easy prompts turn brief and hard ones do not.

    p    = mean r within the group of one prompt's K completions
    r'_i = r_i − β |y_i| max(p, 1/K)
    Â_i  = (r'_i − mean r') / (std r' + 1e-4)                       within the group
    ρ_it = π(y_it) / π_old(y_it)
    L    = −mean_i 1/|y_i| Σ_t min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i )

GRPO with a length penalty in the reward, of right and wrong completions alike; β = 0 is GRPO without the KL term.
|y| counts the policy's own tokens.

Deviations: p, r' and that the penalty grows with p are as in a review of the paper; max(p, 1/K) and β are from memory,
the mechanism could not be checked against code.  r' is computed in float64, because β |y| is near fp32's rounding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class ALP(Method[Groups]):
    paper = Paper("2506.05256", "Xiang et al., 2025", parent="grpo")

    token_cost: NonNegative = 1e-7  # β, reward per token of a prompt that is always solved; from memory
    clip_low: Fraction = 0.2  # ε_low, per token; PPO's default
    clip_high: NonNegative = 0.2  # ε_high, per token; PPO's default

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """reward [B] -> advantage [B]."""
        reward = batch.reward.double()
        solved = torch.maximum(ops.group_mean(reward, batch.group), 1 / ops.group_size(batch.group).double())
        advantage = ops.group_normalize(reward - self.token_cost * solved * batch.mask.sum(1), batch.group)
        return batch.replace(advantage=advantage.to(batch.reward.dtype))

    def silent(self, batch: Groups) -> Tensor:
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        loss = Loss(policy=batch.mean(batch.mean_per_row(-gain)))
        return loss.log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))
