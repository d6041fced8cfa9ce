"""A2C: one step along the policy gradient, each decision judged by what followed it in the batch and V after that.

    R_it = r_it + γ R_i,t+1,   R after the row's last decision: V(s) where it was cut off, 0 where it ended
    Â_it = R_it − V(s_it)
    L_V  = ½ mean_it (V(s_it) − R_it)²
    L    = −mean_it ( Â_it log π(a_it) + β H(π(· | s_it)) ) + L_V

R_it holds as many real rewards as the row has left, so early decisions of a row are judged by longer returns than late
ones.  A bonus for entropy keeps the policy from settling before it has tried.

Deviations: the paper's actors run apart and update shared weights whenever each has its t_max steps (A3C); here they
are stepped together and one update takes the mean over all of them, which is what is called A2C (OpenAI Baselines).
L_V has no coefficient but its ½, because the critic shares no weights with the policy.  AdamW replaces RMSProp.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper, Positive, by_kind


@dataclass(frozen=True, kw_only=True)
class A2C(Method[Groups]):
    paper = Paper("1602.01783", "Mnih et al., 2016", parent="reinforce")
    defaults = by_kind(control={  # paper sec. 5: 16 actors of 5 steps; OpenAI Baselines' learning rate
        "discount": 0.99, "critic_scale": 1.0, "envs": 16, "segment": 5, "rounds": 25, "lr": 7e-4})

    discount: Fraction = 1.0  # γ; as Ziegler et al.'s code has it for language models
    entropy_coef: NonNegative = 0.01  # β, per nat; paper sec. 5.1
    critic_scale: Positive = 10.0  # the critic's learning rate over the policy's; verl's examples of PPO

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "critic")

    @property
    def lr_scale(self) -> Mapping[str, float]:
        return {"policy": 1.0, "critic": self.critic_scale}

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """What each decision brought beyond what was expected: rewards [B, T] -> advantage, value's target [B, T]."""
        value = models.critic.values(batch)
        end = torch.where(batch.finished, 0.0, models.critic.after(batch))
        advantage = ops.gae(batch.step_reward.to(value), value, batch.mask, end, self.discount, 1.0)  # R − V
        return batch.replace(advantage=advantage).with_extra(value_target=advantage + value)

    def loss(self, models: Models, batch: Groups) -> Loss:
        score, value = models.policy.score(batch, entropy=self.entropy_coef > 0), models.critic.values(batch)  # [B, T]
        gain = batch.credit * score.log_prob
        if self.entropy_coef:
            gain = gain + self.entropy_coef * score.entropy
        error = (value - batch.extra["value_target"]) ** 2
        return Loss(policy=batch.mean(-gain), value=batch.mean(error / 2)).log(value=batch.mean(value))
