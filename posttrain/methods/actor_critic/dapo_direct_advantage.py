"""DAPO (direct advantage): regress each step's log-ratio onto its advantage, and keep the critic's training apart.

    A_it = V_t(s_i,t+1) − V_t(s_it);   r_i − V_t(s_it) where t is the last
    L_V  = ½ mean_it ( V(s_it) − r_i )²
    L    = ½ mean_it ( log π(y_it) − log π_t(y_it) − A_it / β )² + L_V;      π_t, V_t are those of the batch's start

Where the first term is 0, log π = log π_t + A / β: to first order in 1/β the policy that maximises A − β KL(π ‖ π_t),
as E A = 0 leaves no normalising constant.  The critic sees outcomes only, never its own estimates, so neither network's
errors feed the other's; every step has a target of its own where an outcome gives all of them one.

Deviations: mechanism from a summary of the paper.  There a step is a line of reasoning, several are drawn from one
prefix, the critic is trained beforehand by cross-entropy on the success of many continuations, and the policy then
learns from a fixed set; iterated, π_ref is the last policy.  Here this is done at every batch, a step is a decision,
each prefix has the one continuation that was sampled, and V is fitted by least squares, whose minimiser is the same
mean and which admits any reward.  β is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from posttrain import ops
from posttrain.core import Count, Groups, Loss, Method, Models, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class DAPODirectAdvantage(Method[Groups]):
    paper = Paper("2412.18279", "Liu et al., 2024", parent="rebel")

    epochs: Count = 4  # passes over each batch; ours
    beta: Positive = 1.0  # β, reward per nat; ours
    critic_scale: Positive = 10.0  # the critic's learning rate over the policy's; ours

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "critic")

    @property
    def lr_scale(self) -> Mapping[str, float]:
        return {"policy": 1.0, "critic": self.critic_scale}

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """What each decision changed in what the critic expects: reward [B] -> advantage [B, T]."""
        value = models.critic.values(batch)
        reward = ops.at_the_end(batch.reward, batch.mask).to(value)
        one_step = ops.gae(reward, value, batch.mask, value.new_zeros(len(batch)), discount=1.0, decay=0.0)
        return batch.replace(advantage=one_step)

    def loss(self, models: Models, batch: Groups) -> Loss:
        change = batch.log_ratio(models.policy.log_prob(batch))  # [B, T]
        value = models.critic.values(batch)
        miss, error = change - batch.credit / self.beta, value - batch.reward[:, None]
        loss = Loss(policy=batch.mean(miss**2 / 2), value=batch.mean(error**2 / 2))
        return loss.log(change=batch.mean(change), value=batch.mean(value))
