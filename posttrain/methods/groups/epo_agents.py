"""EPO: reward entropy, but keep it near what each turn of the conversation has had so far.

    H̄_k = mean over the batches so far of the mean entropy at turn k
    S   = mean_it [ relu(H_it − κ_r H̄_k) + relu(κ_l H̄_k − H_it) ]        k the turn of token t
    L   = −mean_it min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i ) − λ ( mean_it H_it − γ φ S )
    φ   = 1 − 0.2 (1 − e^{−2u}), u = 2b/K for the first K/2 batches;  0.8 e^{−3u}, u = 2b/K − 1 after

A bonus alone makes an agent of many turns collapse early and turn chaotic late.  A turn is a run of the policy's own
tokens: what an environment or a tool says in between begins the next.

Deviations: the authors' S is a constant γ outside the corridor and 0 inside, so it has no gradient at all; the hinge
here has.  They apply it to the later half of the turns, and run PPO or GRPO beneath; this is GRPO's advantage.
K is 150 of their epochs.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Count, Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class EPOAgents(Method[Groups]):
    paper = Paper("2509.22576", "Xu et al., 2025", parent="grpo")

    entropy_coef: NonNegative = 0.001  # λ, per nat; released script
    smooth_coef: NonNegative = 0.1  # γ, per nat outside the corridor; their constant penalty
    corridor_low: NonNegative = 0.8  # κ_l, of H̄; released default, 0 in its runs
    corridor_high: NonNegative = 1.2  # κ_r, of H̄; released default, 2 in its runs
    horizon: Count = 150  # K, batches; released code, in epochs
    clip_low: Fraction = 0.2  # ε_low, per token; PPO's default
    clip_high: NonNegative = 0.2  # ε_high, per token; PPO's default

    def initial_state(self) -> dict[str, float]:
        return {"batches": 0.0, "smooth_coef": self.smooth_coef}

    def prepare(self, models: Models, batch: Groups) -> Groups:
        state = models.state
        state["smooth_coef"] = self.smooth_coef * phase(2 * state["batches"] / self.horizon)
        state["batches"] += 1
        entropy = models.policy.score(batch, entropy=True).entropy  # [B, T]
        typical = remember(state, entropy, turns(batch.mask))
        batch = batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))
        return batch.with_extra(typical_entropy=typical)

    def loss(self, models: Models, batch: Groups) -> Loss:
        score = models.policy.score(batch, entropy=True)
        ratio, entropy = batch.log_ratio(score.log_prob).exp(), score.entropy  # [B, T]
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        typical = batch.extra["typical_entropy"]
        outside = (entropy - self.corridor_high * typical).relu() + (self.corridor_low * typical - entropy).relu()
        smooth = self.entropy_coef * models.state["smooth_coef"] * outside
        loss = Loss(policy=batch.mean(-gain), entropy=batch.mean(-self.entropy_coef * entropy),
                    smooth=batch.mean(smooth))
        return loss.log(ratio=batch.mean(ratio), clipped=batch.mean(clipped), entropy=batch.mean(entropy))


def phase(progress: float) -> float:
    """φ, the weight of the corridor; progress 0 to 2, 1 being half of the horizon; as at 2 afterwards."""
    if progress <= 1:
        return 1 - 0.2 * (1 - math.exp(-2 * progress))
    return 0.8 * math.exp(-3 * (min(progress, 2) - 1))


def turns(mask: Tensor) -> Tensor:
    """[B, T] long: which run of its row's own decisions each belongs to, from 0; −1 where masked."""
    before = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, :-1]], 1)
    return torch.where(mask, (mask & ~before).cumsum(1) - 1, -1)


def remember(state: dict[str, float], entropy: Tensor, turn: Tensor) -> Tensor:
    """Add this batch to the history of every turn; H̄ of each decision's turn, this batch included, [B, T]."""
    typical = torch.zeros_like(entropy)
    for k in range(int(turn.max()) + 1):
        total, count = f"turn_{k}_entropy", f"turn_{k}_batches"
        state[total] = state.get(total, 0.0) + float(entropy[turn == k].mean())
        state[count] = state.get(count, 0.0) + 1
        typical[turn == k] = state[total] / state[count]
    return typical
