"""INPO: play a no-regret step against one's last self, as a squared loss on pairs, without estimating win rates.

    g_i = log π(y_i) − τ/η log π_ref(y_i) − (1 − τ/η) log π_t(y_i)           of whole answers; π_t began the round
    L   = mean ( g_w − g_l − 1 / 2η )²                over best and worst of each prompt's fresh answers

Over two answers drawn at random the optimum is the mirror-descent step π ∝ π_ref^{τ/η} π_t^{1−τ/η} exp(P(y ≻ π_t) / η):
one comparison estimates the chance to win without bias.  Iterated, it approaches the Nash equilibrium of the game
regularised by τ KL to the reference.  With τ = η it is IPO.

Deviations: best and worst of several are the authors' practice, for which the optimum is sharper than that step.
Their judge may compare pairs, in a tournament; here rewards pick.  A round is a number of steps, not a data set.
Equal bests, or worsts, share one pair's weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Count, Fraction, Groups, Loss, Method, Models, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class INPO(Method[Groups]):
    paper = Paper("2407.00617", "Zhang et al., 2024", parent="ipo")
    couples_rows = True

    eta: Positive = 0.005  # η, chance to win per nat; paper app. B
    reference_share: Fraction = 0.3333  # τ/η; paper app. B, one third
    round_steps: Count = 50  # optimizer steps for which π_t stands; ours

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "reference", "anchor")

    def initial_state(self) -> dict[str, float]:
        return {"steps_left": float(self.round_steps)}

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """What the policy is held against, as one reference, and each row's share as a winner, [B]."""
        initial, last = models.reference.log_prob(batch), models.anchor.log_prob(batch)
        mixed = self.reference_share * initial + (1 - self.reference_share) * last
        pairs = ops.best_and_worst(batch.reward, batch.group)
        return batch.replace(logp_ref=mixed).with_extra(pairs=pairs.share(len(batch)))

    def silent(self, batch: Groups) -> Tensor:
        """All but the best and the worst."""
        return ~ops.best_and_worst(batch.reward, batch.group).involved(len(batch))

    def loss(self, models: Models, batch: Groups) -> Loss:
        drift = batch.log_ratio_ref(models.policy.log_prob(batch)).sum(1)  # g, [B]
        pairs = ops.best_and_worst(batch.reward, batch.group)
        margin = pairs.margin(drift)  # [P]
        loss = Loss(policy=batch.mean_over(pairs.weight * ops.squared(margin, 1 / (2 * self.eta)), "pairs"))
        return loss.log(margin=batch.mean_over(pairs.weight * margin, "pairs"))

    def after_step(self, models: Models, metrics: Mapping[str, float]) -> None:
        models.state["steps_left"] -= 1
        if not models.state["steps_left"]:
            ops.follow_(models.anchor.module, models.policy.module, 1.0)
            models.state["steps_left"] = float(self.round_steps)
