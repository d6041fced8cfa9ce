"""DRA-GRPO: answers that resemble each other share their reward, so that each kind of solution earns its own.

    e_i = the counts of tokens in y_i, scaled to length 1
    w_i = 1 / Σ_j e_i · e_j                                         over the group of one prompt, i included
    Â_i = (w_i r_i − mean w r) / (std w r + 1e-4)
    L   = −mean_i 1/|y_i| Σ_t min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i )

GRPO pays every right answer alike, so the likeliest line of reasoning crowds out the others.  The sum says how much of
the group an answer stands for: n copies of one answer get 1/n each, an answer unlike all others the whole.  It means
what it says for rewards of 0 and above; of negative ones duplicates bear less.

Deviations: the authors' e_i comes from a sentence encoder that reads the text.  Counts of tokens know words but neither
their order nor their meaning, and two paraphrases look less alike; cosines of counts are never negative.  GRPO's KL
term is left out; 1e-6 is not added to the sum, which is at least 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class DRAGRPO(Method[Groups]):
    paper = Paper("2505.09655", "Chen et al., 2025", parent="grpo")

    clip_low: Fraction = 0.2  # ε_low, per token; PPO's default
    clip_high: NonNegative = 0.2  # ε_high, per token; PPO's default

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Divide each reward by how much it is repeated, then as GRPO: reward [B] -> advantage [B]."""
        rarity = 1 / crowding(batch.extra["token"], batch.mask, batch.group).to(batch.reward)  # w
        advantage = ops.group_normalize(rarity * batch.reward, batch.group)
        return batch.replace(advantage=advantage).with_extra(rarity=rarity)

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal adjusted rewards pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        loss = Loss(policy=batch.mean(batch.mean_per_row(-gain)))
        return loss.log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))


def crowding(token: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    """Σ_j cosine of the token counts of rows i and j of a group, itself included as 1, [B] float64, at least 1."""
    total = torch.ones(len(group), dtype=torch.float64)
    for unit in group.unique():
        own = (group == unit).nonzero()[:, 0]
        row, column = mask[own].nonzero(as_tuple=True)
        kinds, index = token[own][row, column].unique(return_inverse=True)
        counts = torch.zeros(len(own), len(kinds), dtype=torch.float64)
        counts.index_put_((row, index), torch.ones(len(row), dtype=torch.float64), accumulate=True)
        unit_counts = counts / counts.norm(dim=1, keepdim=True).clamp(min=1)
        total[own] = (unit_counts @ unit_counts.T).fill_diagonal_(1).sum(1)
    return total
