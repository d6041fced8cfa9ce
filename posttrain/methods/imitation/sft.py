"""SFT: raise the likelihood of given answers, token by token.

    a_i = 1 where r_i > 0, else 0
    L   = −Σ_i a_i Σ_t log π(y_it) / Σ_i a_i |y_i|

Behaviour cloning: −log π is the cross-entropy between the demonstrator and the policy on the demonstrator's own
prefixes, so its optimum is the demonstrator, but nothing is learnt of the prefixes that only the policy reaches.
The worth of an answer does not weigh it: one of reward 0 or less, such as the rejected half of a preference, is left
out, and the rest count alike.

Deviations: the paper trains for 16 epochs with residual dropout of 0.2 and chooses among its checkpoints by a reward
model; here there is no dropout, and nothing is chosen.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain.core import Groups, Loss, Method, Models, Paper


@dataclass(frozen=True, kw_only=True)
class SFT(Method[Groups]):
    paper = Paper("2203.02155", "Ouyang et al., 2022")
    learns_from = "demonstrations"

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Which answers are imitated: reward [B] -> advantage [B], 1 or 0; the same for every decision as `kept`."""
        kept = (batch.reward > 0).to(batch.reward)
        return batch.replace(advantage=kept).with_extra(kept=kept[:, None].expand(batch.mask.shape))

    def silent(self, batch: Groups) -> Tensor:
        """What is not kept has no part in the loss."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        return Loss(policy=batch.mean(-logp, weight="kept"))
