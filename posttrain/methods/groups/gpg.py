"""GPG: the plain policy gradient of centred rewards, scaled up for the prompts that taught nothing.

    Â_i = α (r_i − mean r)                                          within the group of one prompt
    α   = B / (B − M)                                               M completions lie in groups of equal rewards
    L   = −mean_it Â_i log π(y_it)

Groups of equal rewards add no gradient but count in the mean, so an unscaled step shrinks with their share; α undoes
that.  No division by the spread (the paper's F_norm = 1), no ratio, no clip, no KL term.

Deviations: the authors' code also draws further prompts until 1 / α reaches a threshold; that is a property of the
source of samples and is not part of this file.  Some ports count completions of reward 0 as M.  Samples are taken to be
fresh.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, Paper


@dataclass(frozen=True, kw_only=True)
class GPG(Method[Groups]):
    paper = Paper("2504.02546", "Chu et al., 2025", parent="reinforce")

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Centre within groups and scale by the share of useful completions: reward [B] -> advantage [B]."""
        useful = int((~ops.is_constant(batch.reward, batch.group)).sum())  # B − M
        alpha = len(batch) / max(useful, 1)
        return batch.replace(advantage=alpha * ops.group_center(batch.reward, batch.group))

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal rewards pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        return Loss(policy=batch.mean(-batch.credit * logp))
