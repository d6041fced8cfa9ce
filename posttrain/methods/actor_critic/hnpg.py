"""HNPG: TRPO whose critic and whose steps also hear of logged actions, as far as those can be believed.

    V(s) = mean_k Q(s, a_k),   a_k ~ π( · | s),   k = 1 … 10
    L_Q  = mean_own ( Q(s_t, a_t) − G_t )²  +  λ mean_logged ( Q(s, a) − r − γ (1 − d) Q̄(s', a') )²,   a' ~ π( · | s')
    G_t  = Σ_l γ^l r_{t+l}                            to the end of what was done, with V for what was cut off
    A_t  of GAE with V where π acted;   A = Q(s, ã) − V(s),   ã ~ π( · | s), in logged states
    L_π  = −mean π(a | s) / π_old(a | s) Â            over both, Â normalised; the step is TRPO's
    Q̄ ← Q                                             before the first update of a batch, then after every m-th

Returns that π has just had are unbiased whatever Q can represent, so the guarantee of a natural policy gradient stays;
where the logged actions cover what a good policy does, Bellman's equation carries their rewards to states that π has
not reached by itself.  Q is of π: a logged action is evaluated, never cloned.  With λ = 0 and no logged states it is
TRPO with a Q for its critic.

Deviations: the released code has a Q and a policy for every step of a finite horizon and backs up from the last, each
by 30 updates; here one of each serves all steps, Q̄ standing for the Q of the step after, and γ < 1.  A is of the Q that
the batch began with, as TRPO's V is, where that code fits Q first.  Â is normalised, which it is not there, and a step
is searched for as in TRPO here.  What has no source in that code is TRPO's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Count, Fraction, Groups, Loss, Models, NonNegative, Paper, by_kind
from posttrain.methods.actor_critic.trpo import TRPO


@dataclass(frozen=True, kw_only=True)
class HNPG(TRPO):
    paper = Paper("2311.08384", "Zhou et al., 2023", parent="trpo")
    learns_from = "both"
    kinds = ("control",)
    noises = 12  # of each state: for V, then ã, then a'; ten for V in the released code
    members: ClassVar[int] = 1
    defaults = by_kind(control={  # released code, but for the passes, of which it has 30 for each step of its horizon
        "dataset_share": 0.5, "segment": 1000, "epochs": 90, "critic_scale": 1.0, "lr": 3e-4, "lr_schedule": "constant",
        "decay": 0.97, "discount": 0.99, "max_grad_norm": 1e6})

    logged_weight: NonNegative = 1.0  # λ; released code
    renewal: Count = 30  # m, updates of Q; released code, of each step's Q
    discount: Fraction = 0.99  # γ; ours, the released code's horizon is finite

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "anchor", "q", "q_target")

    @property
    def lr_scale(self) -> Mapping[str, float]:
        return {"policy": 1.0, "q": self.critic_scale}

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """What each decision brought; in given rows, what another one of the policy's would; π_old and Q̄ begin."""
        ops.follow_(models.anchor.module, models.policy.module, 1.0)
        ops.follow_(models.q_target.module, models.q.module, 1.0)
        x, mask, (*of_v, again, then) = batch.extra, batch.mask, batch.extra["noise"].unbind(2)
        given = x["given"][:, None] & mask  # [B, T]
        value, after = (worth(models, x[name], of_v) for name in ("obs", "next_obs"))
        end = torch.where(batch.finished, 0.0, after[torch.arange(len(batch)), mask.sum(1) - 1])
        whole, advantage = (ops.gae(batch.step_reward.to(value), value, mask, end, self.discount, decay)
                            for decay in (1.0, self.decay))
        redrawn, next_action = sampled(models, x["obs"], again), sampled(models, x["next_obs"], then)
        advantage = torch.where(given, of(models.q, x["obs"], redrawn) - value, advantage)
        wide = given.view(*given.shape, *[1] * (redrawn.dim() - 2))
        batch = batch.doing(torch.where(wide, redrawn, x["action"])).with_extra(
            value_target=value + whole, next_action=next_action, own=(~given & mask).to(value), logged=given.to(value))
        old = None if batch.logp_old is None else models.policy.log_prob(batch)
        return batch.replace(advantage=ops.batch_normalize(advantage, mask), logp_old=old)

    def loss(self, models: Models, batch: Groups) -> Loss:
        x = batch.extra
        with torch.no_grad():
            after = of(models.q_target, x["next_obs"], x["next_action"])
            believed = batch.step_reward + self.discount * torch.where(x["terminated"], 0.0, after)
        value = of(models.q, x["obs"], x["action"])
        returned, backed_up = (value - x["value_target"]) ** 2, self.logged_weight * (value - believed) ** 2
        loss = Loss(value=batch.mean(returned, weight="own"), logged_value=batch.mean(backed_up, weight="logged"))
        return self.climb(models, batch, loss.log(value=batch.mean(value)))

    def after_step(self, models: Models, metrics: Mapping[str, float]) -> None:
        super().after_step(models, metrics)
        if models.state["updates"] % self.renewal == 0:
            ops.follow_(models.q_target.module, models.q.module, 1.0)


def of(network: Any, obs: Tensor, action: Tensor) -> Tensor:
    """What Q says of each, [B, T]."""
    said: Tensor = network(obs.flatten(0, 1), action.flatten(0, 1))[0]
    return said.view(obs.shape[:2])


def sampled(models: Models, obs: Tensor, noise: Tensor) -> Tensor:
    """The policy's actions, [B, T, A] or [B, T] long."""
    action: Tensor = models.policy.sample(obs.flatten(0, 1), noise.flatten(0, 1)).action
    return action.view(*obs.shape[:2], *action.shape[1:])


def worth(models: Models, obs: Tensor, noise: Sequence[Tensor]) -> Tensor:
    """V, [B, T], the mean over an action of each noise [B, T, A]."""
    return torch.stack([of(models.q, obs, sampled(models, obs, each)) for each in noise]).mean(0)
