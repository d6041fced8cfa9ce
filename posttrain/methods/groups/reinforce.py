"""REINFORCE: make a completion likelier in proportion to its reward, with no baseline, critic or clip.

    Â_i = r_i
    L   = −mean_i Â_i Σ_t log π(y_it)

log π of a completion is the sum over its decisions, so nothing is divided by a length: the gradient is an unbiased
estimate of that of the expected reward.

Deviations: Williams' rule admits any baseline that does not depend on the action; here it is 0, and `rloo` adds one.
Samples are taken to be fresh: with several updates from one batch, nothing corrects for the policy's having moved.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain.core import Groups, Loss, Method, Models, Paper


@dataclass(frozen=True, kw_only=True)
class Reinforce(Method[Groups]):
    paper = Paper("https://doi.org/10.1007/BF00992696", "Williams, 1992")

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """The reward itself: reward [B] -> advantage [B]."""
        return batch.replace(advantage=batch.reward)

    def silent(self, batch: Groups) -> Tensor:
        """A reward of 0 pulls in no direction."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        return Loss(policy=batch.mean(-(batch.credit * logp).sum(1)))
