"""RPO (SFT-regularized): DPO that also imitates the preferred answer, against rewards that its pairs do not cover.

    h_i = log π(y_i) − log π_ref(y_i)                                        of whole answers
    L   = −mean [ log σ( β (h_w − h_l) ) + η β log π(y_w) ]                  over pairs w ≻ l of one prompt

The policy that is best against the worst reward compatible with the preferences is found by this sum: the second term
is what an adversary would charge for leaving the answers that the data covers.  DPO alone may lower both answers of a
pair and give the mass to others; η = 0 is DPO.

Deviations: none for given pairs; the baseline to be imitated is the preferred answer, as in the released code.  A group
of more than two answers is all of its pairs that differ in worth, and every pair counts once; fresh samples are
such groups where the task gives no preferences.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, NonNegative, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class RPOSFTRegularized(Method[Groups]):
    paper = Paper("2405.16436", "Liu et al., 2024", parent="dpo")
    learns_from = "preferences"
    couples_rows = True

    beta: Positive = 0.01  # β, reward per nat; released configuration of Zephyr-7B
    imitation: NonNegative = 0.005  # η, weight of β log π(y_w); released configuration of Zephyr-7B

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
        logp = models.policy.log_prob(batch)  # [B, T]
        pairs = ops.every_pair(batch.reward, batch.group)
        margin = self.beta * pairs.margin(batch.log_ratio_ref(logp).sum(1))  # [P]
        winner = logp.sum(1)[pairs.winner]
        loss = Loss(policy=batch.mean_over(pairs.weight * ops.logistic(margin), "pairs"),
                    imitation=batch.mean_over(pairs.weight * -self.imitation * self.beta * winner, "pairs"))
        right = (margin > 0).to(margin.dtype)
        return loss.log(margin=batch.mean_over(pairs.weight * margin, "pairs"),
                        right=batch.mean_over(pairs.weight * right, "pairs"))
