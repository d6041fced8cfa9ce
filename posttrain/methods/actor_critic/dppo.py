"""DPPO: each step by which a diffusion makes an action is a decision of its own, with the action's advantage.

    ρ_ik = exp mean_A ( log N(x_{k−1}; μ_θ(x_k, k, s_i), σ_k²) − log N(x_{k−1}; μ_old(x_k, k, s_i), σ_k²) )
    ε_k  = ε_K + (ε_1 − ε_K) (e^{c (K − k) / (K − 1)} − 1) / (e^c − 1)          from the first step, K, to the last, 1
    L    = −mean_ik min( ρ_ik γ_d^{k−1} Â_i, clip(ρ_ik, 1 ± ε_k) γ_d^{k−1} Â_i ) + L_V

The denoising chain is an inner decision process: rewards come where its last step acts, and the critic knows the
environment's state alone.  Steps near the noise decide less of the action, so they are discounted by γ_d and clipped
closer.  A step is no narrower than 0.1, which is what explores (`diffusion` in posttrain.policies).  The rest is PPO's.

Deviations: single actions, where the authors' policies decide several at once.  All K steps of an action are learnt in
one update, where theirs draws steps apart.  The critic's step is bounded as PPO's, theirs is not.
"""

import math
from dataclasses import dataclass

import torch

from posttrain.core import Fraction, Groups, Loss, Models, Paper, Positive, by_kind
from posttrain.methods.actor_critic.ppo import PPO


@dataclass(frozen=True, kw_only=True)
class DPPO(PPO):
    paper = Paper("2409.00588", "Ren et al., 2024", parent="ppo")
    continues = True
    kinds = ("control",)
    policies = ("diffusion",)
    defaults = by_kind(control={**PPO.defaults["control"], "policy": "diffusion", "critic_scale": 10.0,
                                "activation": "relu", "width": 256, "lr": 1e-4})

    clip_low: Fraction = 0.01  # ε_1 below 1, at the last step; the authors' code, robomimic
    clip_high: Positive = 0.01  # ε_1 above 1; the authors' code, robomimic
    first_share: Fraction = 0.1  # ε_K / ε_1; the authors' code, robomimic
    clip_growth: Positive = 3.0  # c; the authors' code
    denoising_discount: Fraction = 0.99  # γ_d; the authors' code, gym

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Also what each step's log-probability was, [B, T, K]."""
        logp = models.policy.step_log_prob(batch)
        return super().prepare(models, batch).with_extra(step_logp=logp)

    def surrogate(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.step_log_prob(batch)  # [B, T, K]
        old = logp.detach() if batch.logp_old is None else batch.extra["step_logp"]
        ratio = (logp - old).exp()
        done = torch.linspace(0, 1, ratio.shape[2], dtype=ratio.dtype)  # of the chain
        growth = (self.clip_growth * done).expm1() / math.expm1(self.clip_growth)
        share = self.first_share + (1 - self.first_share) * growth  # ε_k / ε_1, [K]
        credit = batch.credit[:, :, None] * self.denoising_discount ** torch.arange(len(done) - 1, -1, -1)
        near = ratio.clamp(1 - self.clip_low * share, 1 + self.clip_high * share)
        gain = (ratio * credit).minimum(near * credit)
        clipped = (near * credit < ratio * credit).to(ratio.dtype)
        loss = Loss(policy=batch.mean(-gain.mean(2)))
        return loss.log(ratio=batch.mean(ratio.mean(2)), clipped=batch.mean(clipped.mean(2)))
