"""Online DPO: DPO on the best and the worst of the policy's own fresh answers to each prompt.

    w, l = the answers of highest and of lowest reward in the group
    h_i  = log π(y_i) − log π_ref(y_i)                                       of whole answers
    L    = −mean log σ( β (h_w − h_l) )                                      over prompts whose rewards differ

Given pairs come from another policy and stay as they are while this one moves away; fresh ones show it its present
mistakes.  The paper asks a language model which of two answers is better, here the reward says so.

Deviations: the authors sample two answers a prompt, of which best and worst is the pair.  Equal bests, or worsts,
share one pair's weight, which is the mean over picking one at random.  β is DPO's, the paper's depends on the task.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class OnlineDPO(Method[Groups]):
    paper = Paper("2402.04792", "Guo et al., 2024", parent="dpo")
    couples_rows = True

    beta: Positive = 0.1  # β, reward per nat; DPO's

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "reference")

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Count each row's share as its prompt's winner, [B], and score the reference."""
        pairs = ops.best_and_worst(batch.reward, batch.group)
        return batch.replace(logp_ref=models.reference.log_prob(batch)).with_extra(pairs=pairs.share(len(batch)))

    def silent(self, batch: Groups) -> Tensor:
        """All but the best and the worst."""
        return ~ops.best_and_worst(batch.reward, batch.group).involved(len(batch))

    def loss(self, models: Models, batch: Groups) -> Loss:
        drift = batch.log_ratio_ref(models.policy.log_prob(batch)).sum(1)  # h, [B]
        pairs = ops.best_and_worst(batch.reward, batch.group)
        margin = self.beta * pairs.margin(drift)  # [P]
        loss = Loss(policy=batch.mean_over(pairs.weight * ops.logistic(margin), "pairs"))
        right = (margin > 0).to(margin.dtype)
        return loss.log(margin=batch.mean_over(pairs.weight * margin, "pairs"),
                        right=batch.mean_over(pairs.weight * right, "pairs"))
