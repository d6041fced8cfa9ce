"""MDPO: several steps on the linearised return less a KL to the previous policy, whose weight grows over training.

    t_k = 1 − k / K for the k-th batch, at least 1 / K
    L   = −mean_it ρ_it Â_i + 1/t_k mean_it ( ρ_it log ρ_it − ρ_it + 1 )

Nothing is clipped.  Where both terms balance, log ρ = t_k Â: the mirror-descent step π ∝ π_old exp(t_k Â).  The
second term is unbiased for KL(π ‖ π_old) under samples of π_old, and its first gradient is 0, so one step per batch
would be the plain policy gradient.

Deviations: this is the on-policy variant; its advantage is the group's where the paper's comes from a critic.  The
released code has the exact KL of Gaussian actions, here it is estimated at the sampled decision.
"""

from dataclasses import dataclass

from posttrain import ops
from posttrain.core import Count, Groups, Loss, Method, Models, Paper


@dataclass(frozen=True, kw_only=True)
class MDPO(Method[Groups]):
    paper = Paper("2005.09814", "Tomar et al., 2020", parent="ppo")

    epochs: Count = 10  # m, steps per batch; README's runs
    horizon: Count = 1000  # K, batches; the whole run in the paper

    def initial_state(self) -> dict[str, float]:
        return {"batches": 0.0, "step_size": 1.0}

    def prepare(self, models: Models, batch: Groups) -> Groups:
        state = models.state
        state["step_size"] = max(1 - state["batches"] / self.horizon, 1 / self.horizon)
        state["batches"] += 1
        return batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))

    def loss(self, models: Models, batch: Groups) -> Loss:
        log_ratio = batch.log_ratio(models.policy.log_prob(batch))  # [B, T]
        ratio = log_ratio.exp()
        kl = ratio * log_ratio - log_ratio.expm1()
        loss = Loss(policy=batch.mean(-ratio * batch.credit), kl=batch.mean(kl / models.state["step_size"]))
        return loss.log(ratio=batch.mean(ratio), kl=batch.mean(kl))
