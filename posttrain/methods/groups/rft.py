"""RFT: sample, keep the right answers, and raise their likelihood; repeated, it is expert iteration.

    a_i = 1 where r_i > θ, else 0
    L   = −Σ_i a_i Σ_t log π(y_it) / Σ_i a_i |y_i|

REINFORCE with a reward of 0 or 1 has the same direction, but here only the kept tokens count in the mean, so a step is
as long when few answers are right.  Wrong answers teach nothing.

Deviations: the paper samples once from a fine-tuned model, keeps each distinct line of reasoning once and trains the
pretrained model on them for several epochs; here answers are kept as often as they come, and every step continues from
the last.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain.core import Groups, Loss, Method, Models, Paper


@dataclass(frozen=True, kw_only=True)
class RFT(Method[Groups]):
    paper = Paper("2308.01825", "Yuan et al., 2023", parent="reinforce")

    threshold: float = 0.5  # θ, reward; right answers have 1 and wrong ones 0

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Which completions are kept: reward [B] -> advantage [B], 1 or 0; the same for every decision as `kept`."""
        kept = (batch.reward > self.threshold).to(batch.reward)
        return batch.replace(advantage=kept).with_extra(kept=kept[:, None].expand(batch.mask.shape))

    def silent(self, batch: Groups) -> Tensor:
        """What is not kept has no part in the loss."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        return Loss(policy=batch.mean(-logp, weight="kept")).log(kept=batch.mean(batch.credit[:, 0]))
