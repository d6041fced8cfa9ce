"""SEED-GRPO: a prompt whose sampled answers scatter over many meanings gets a smaller update.

    p_k  = share of the group's G completions that give answer k,  k = 1 … K
    SE   = −1/K Σ_k log p_k                            0 when all agree, log G when no two do
    Â_i  = (r_i − mean r) (1 − α SE / log G)           within the group of one prompt
    ρ_it = π(y_it) / π_old(y_it)
    L    = −mean_i 1/|y_i| Σ_t min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i )

GRPO without the division by the standard deviation, times a factor of the semantic entropy SE.
Two completions mean the same if `batch.extra["answer"]` [B] long, the number of the final answer within its group,
is the same.

Deviations: p_k counts completions, where the paper adds up their probabilities under π_old; of the paper's three
shapes of the factor (linear, exponential, focal) this is the linear one.  No code by the authors was found; α is
that of a public re-implementation, and the paper's own value could not be confirmed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class SeedGRPO(Method[Groups]):
    paper = Paper("2505.12346", "Chen et al., 2025", parent="grpo")

    sensitivity: Fraction = 0.0417  # α, share taken off when no two answers agree; a re-implementation, see Deviations
    clip_low: Fraction = 0.2  # ε_low, per token; PPO's default
    clip_high: NonNegative = 0.2  # ε_high, per token; PPO's default

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """reward, answer [B] -> advantage [B]."""
        doubt = semantic_entropy(batch.extra["answer"], batch.group)
        factor = (1 - self.sensitivity * doubt).to(batch.reward.dtype)
        return batch.replace(advantage=factor * ops.group_center(batch.reward, batch.group))

    def silent(self, batch: Groups) -> Tensor:
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        loss = Loss(policy=batch.mean(batch.mean_per_row(-gain)))
        return loss.log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))


def semantic_entropy(answer: Tensor, group: Tensor) -> Tensor:
    """SE / log G of each row's own group, in [0, 1]: answer, group [B] long -> [B] float64; 0 for a group of one.

    A row that shares its answer with n others stands for 1/n of an answer, so that the mean is over answers.
    """
    share = ops.group_share(answer, group)
    entropy = ops.group_mean(-share.log() / share, group) / ops.group_mean(1 / share, group)
    size = ops.group_size(group)
    return torch.where(size > 1, entropy / size.clamp(min=2).double().log(), 0.0)
