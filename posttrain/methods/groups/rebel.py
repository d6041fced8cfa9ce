"""REBEL: regress the change of log-probability between two answers on the difference of their rewards.

    h_i = log π(y_i) − log π_t(y_i)                     of whole answers; π_t is the policy at the batch's start
    L   = mean_{i<j} ( (h_i − h_j) / η − (r_i − r_j) )²                      over all pairs of one prompt

Where it is 0, π ∝ π_t exp(η r): the mirror-descent step, with Z gone because only differences are fitted.  No critic,
no clipping and no ratio to the sampler; its first gradient is RLOO's but for scale.

Deviations: the authors draw two answers a prompt; a larger group is all of its pairs, each counting once.  Their code
has the loss times η², and takes 0.05 log( π_t / π_ref ) off the reward, which is left out.
"""

from dataclasses import dataclass

from posttrain import ops
from posttrain.core import Count, Groups, Loss, Method, Models, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class REBEL(Method[Groups]):
    paper = Paper("2404.16767", "Gao et al., 2024", parent="mdpo")
    couples_rows = True

    step_size: Positive = 1.0  # η, nats per unit of reward; released script
    epochs: Count = 4  # passes over each batch; released script

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Count the pairs that each row opens, [B]."""
        return batch.with_extra(pairs=ops.every_two(batch.group, batch.reward.dtype).share(len(batch)))

    def loss(self, models: Models, batch: Groups) -> Loss:
        change = batch.log_ratio(models.policy.log_prob(batch)).sum(1)  # h, [B]
        pairs = ops.every_two(batch.group, change.dtype)
        miss = pairs.margin(change / self.step_size - batch.reward)  # [P]
        return Loss(policy=batch.mean_over(miss**2, "pairs")).log(change=batch.mean(change))
