"""PPO-max: of PPO's many tricks those that keep it stable, above all bounds on how far policy, value and reward move.

    m, s = mean and standard deviation of every reward so far
    r̂_i  = clip( (r_i − m) / s, ±δ )
    r_it = [t is the last] r̂_i − β ( log π_old(y_it) − log π_ref(y_it) )
    δ_it = r_it + γ V_old(s_i,t+1) − V_old(s_it),   V_old = 0 after the last decision
    G_it = Σ_l (γ λ)^l δ_i,t+l,   R_it = G_it + V_old(s_it)
    Â_it = G_it
    ρ_it = π(y_it) / π_old(y_it)
    L_V  = ½ mean_it max( (V_it − R_it)², (clip(V_it, V_old ± ε_V) − R_it)² )
    L    = −mean_it min( ρ_it Â_it, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_it ) + L_V

Rewards are put on one scale by all of their history, so that neither a batch's luck nor the task's unit changes how
much a nat of KL costs.  Advantages then need no normalisation of their own.  Everything else is PPO's, the clipped
value included.

Deviations: the paper also starts the critic from the reward model, trains it alone for a while first, and adds the
pretraining loss; there may be no reward model here, and the released scripts leave that loss out.  They scale by s
alone and clip nothing; this is the paper's form, with the δ that the code has as its default.  The paper takes four
steps on a quarter of the batch each, which is minibatches = 4 and epochs = 1; here each is on all of it.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from posttrain.core import Groups, Models, NonNegative, Paper, Positive
from posttrain.methods.actor_critic.ppo import PPO


@dataclass(frozen=True, kw_only=True)
class PPOMax(PPO):
    paper = Paper("2307.04964", "Zheng et al., 2023", parent="ppo")

    reward_clip: Positive = 10.0  # δ, standard deviations; released code's default
    kl_coef: NonNegative = 0.01  # β, scaled reward per nat; released script for English, 0.1 for Chinese
    critic_scale: Positive = 3.0  # the critic's learning rate over the policy's; released code, 1.5e-6 over 5e-7

    def initial_state(self) -> dict[str, float]:
        return {"rewards": 0.0, "reward_mean": 0.0, "reward_squares": 0.0}

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """PPO's credit from scaled rewards, not normalised: reward [B] -> advantage, value and its target [B, T]."""
        scaled = (batch.reward - remember(models.state, batch.reward)) / (spread(models.state) + 1e-8)
        scored = super().prepare(models, batch.replace(reward=scaled.clamp(-self.reward_clip, self.reward_clip)))
        gained = scored.extra["value_target"] - scored.extra["value_old"]
        return scored.replace(reward=batch.reward, advantage=gained)


def remember(state: dict[str, float], reward: Tensor) -> float:
    """Add rewards [B] to the history: its mean m, these included.  Squares are about the mean (Chan et al. 1979)."""
    x = reward.double()
    mean, squares = float(x.mean()), float(((x - x.mean()) ** 2).sum())
    count, total = state["rewards"], state["rewards"] + len(x)
    gap = mean - state["reward_mean"]
    state["reward_mean"] += gap * len(x) / total
    state["reward_squares"] += squares + gap**2 * count * len(x) / total
    state["rewards"] = total
    return state["reward_mean"]


def spread(state: dict[str, float]) -> float:
    """s, the sample standard deviation of the history; 0 of a single reward."""
    return math.sqrt(state["reward_squares"] / max(state["rewards"] - 1, 1))
