"""IPO: pull every preferred answer a fixed margin ahead, and no further.

    h_i = log π(y_i) − log π_ref(y_i)                                        of whole answers
    L   = mean ( h_w − h_l − 1 / 2τ )²                                       over pairs w ≻ l of one prompt

With P(i ≻ j) the chance that i is preferred, the optimum over pairs sampled from μ is π ∝ π_ref exp(P(y ≻ μ) / τ): a
preference probability is at most 1, so the KL to the reference never loses its grip, whereas DPO's Bradley–Terry reward
runs to ∞ on preferences without exceptions.

Deviations: whole answers as in the paper's eq. 17; TRL divides h by the answer's length.  The paper gives no
value of τ for language models, ours is one of its bandit's.  A larger group is all of its pairs that differ in worth,
each counting once; fresh samples are such groups where the task gives no preferences.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class IPO(Method[Groups]):
    paper = Paper("2310.12036", "Azar et al., 2023", parent="dpo")
    learns_from = "preferences"
    couples_rows = True

    tau: Positive = 0.1  # τ, preference per nat; the smallest of the paper's bandits

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "reference")

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Count each row's pairs as a winner, [B], and score the reference."""
        pairs = ops.every_pair(batch.reward, batch.group)
        return batch.replace(logp_ref=models.reference.log_prob(batch)).with_extra(pairs=pairs.share(len(batch)))

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal rewards has no pair."""
        return ops.is_constant(batch.reward, batch.group)

    def loss(self, models: Models, batch: Groups) -> Loss:
        drift = batch.log_ratio_ref(models.policy.log_prob(batch)).sum(1)  # h, [B]
        pairs = ops.every_pair(batch.reward, batch.group)
        margin = pairs.margin(drift)  # [P]
        loss = Loss(policy=batch.mean_over(pairs.weight * ops.squared(margin, 1 / (2 * self.tau)), "pairs"))
        right = (margin > 0).to(margin.dtype)
        return loss.log(margin=batch.mean_over(pairs.weight * margin, "pairs"),
                        right=batch.mean_over(pairs.weight * right, "pairs"))
