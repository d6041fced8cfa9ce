"""cDPO: DPO that takes a share ε of its labels to be flipped, and so stops at a finite margin.

    h_i = log π(y_i) − log π_ref(y_i)                                        of whole answers
    m   = β (h_w − h_l)
    L   = −mean [ (1 − ε) log σ(m) + ε log σ(−m) ]                           over pairs w ≻ l of one prompt

dL/dm = σ(m) − (1 − ε): a pair that the policy ranks with more confidence than 1 − ε is pulled back, where DPO pushes
it on for ever.  It rests at m = log((1 − ε) / ε); ε = 0 is DPO, and at ε = ½ no label says anything.

Deviations: none for given pairs.  A group of more than two answers is all of its pairs that differ in worth, and every
pair counts once; fresh samples are such groups where the task gives no preferences.  The note leaves ε to the user.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class CDPO(Method[Groups]):
    paper = Paper("https://ericmitchell.ai/cdpo.pdf", "Mitchell, 2023", parent="dpo")
    learns_from = "preferences"
    couples_rows = True

    beta: Positive = 0.1  # β, reward per nat; DPO's
    flipped: Fraction = 0.1  # ε, share of labels taken to be wrong; ours

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
        margin = self.beta * pairs.margin(drift)  # m, [P]
        loss = Loss(policy=batch.mean_over(pairs.weight * ops.logistic(margin, self.flipped), "pairs"))
        right = (margin > 0).to(margin.dtype)
        return loss.log(margin=batch.mean_over(pairs.weight * margin, "pairs"),
                        right=batch.mean_over(pairs.weight * right, "pairs"))
