"""DPO: raise preferred answers over dispreferred ones, the policy itself being the reward model.

    h_i = log π(y_i) − log π_ref(y_i)                                        of whole answers
    L   = −mean log σ( β (h_w − h_l) )                                       over pairs w ≻ l of one prompt

With r = β h + β log Z(x) the Bradley–Terry likelihood of the preferences is this loss, and Z cancels: its optimum is
the policy that maximises r − β KL(π ‖ π_ref), found without sampling.

Deviations: none for given pairs.  A group of more than two answers is all of its pairs that differ in worth, and every
pair counts once.  Where the task gives no preferences the answers are fresh samples and their rewards decide.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class DPO(Method[Groups]):
    paper = Paper("2305.18290", "Rafailov et al., 2023")
    learns_from = "preferences"
    couples_rows = True

    beta: Positive = 0.1  # β, reward per nat; paper app. B

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
        margin = self.beta * pairs.margin(drift)  # [P]
        loss = Loss(policy=batch.mean_over(pairs.weight * ops.logistic(margin), "pairs"))
        right = (margin > 0).to(margin.dtype)
        return loss.log(margin=batch.mean_over(pairs.weight * margin, "pairs"),
                        right=batch.mean_over(pairs.weight * right, "pairs"))
