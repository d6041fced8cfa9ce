"""DRPO (decoupled reward): prefer short answers among the right ones only, so that none of them is ever pushed down.

    s_i = 1/|y_i| Σ_t log π(y_it)
    w_i ∝ exp( −|y_i| / (λ L) ) over the right completions P of a prompt;  N: its wrong ones
    J   = Σ_{i ∈ P} w_i s_i − τ log( 1/|N| Σ_{j ∈ N} exp(s_j / τ) )               0 where P or N is empty
    D   = mean over the prompt's tokens of log π_old − log π
    L   = −mean J + mean β/2 (max(0, D − δ))²                                     over all prompts of the batch

Not a clipped policy gradient but DisCO's discrimination of right from wrong under a bound on the divergence; λ → ∞ is
DisCO.  GRPO with a length penalty gives a long right answer a negative advantage; here w_i > 0.  A reward of at least ½
is right, a lower one wrong.

Deviations: D is of one prompt, where the released code has that of the whole minibatch, which one micro-batch does not
know.  The squared hinge has the gradient of the code's stop-gradient form.  L is a number of its own, the code takes
the padded width; rewards other than 0 and 1, which are halved at ½ here, teach nothing there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Count, Groups, Loss, Method, Models, NonNegative, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class DRPODecoupledReward(Method[Groups]):
    paper = Paper("2510.04474", "Li et al., 2025", parent="disco")
    couples_rows = True

    length_scale: Positive = 0.1  # λ, of the length reward 1 − |y| / L; released script
    max_length: Count = 8192  # L, tokens; released script
    score_temperature: Positive = 10.0  # τ, nats per token; released script
    divergence: NonNegative = 1e-4  # δ, nats per token that are free; released script
    penalty: NonNegative = 1e3  # β, per nat; released script

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """reward [B] -> advantage: n w_i if right, −1 if wrong, or 0; and in `extra` prompt: 1/n, both [B]."""
        right = batch.reward >= 0.5
        share = ops.group_mean(right.to(batch.reward.dtype), batch.group)
        brevity = -batch.mask.sum(1).to(share.dtype) / (self.length_scale * self.max_length)
        weight = (brevity - log_mean_exp(brevity, right, batch.group)).exp() / share
        credit = torch.where(right, weight, -1.0)
        batch = batch.replace(advantage=torch.where((share > 0) & (share < 1), credit, 0.0))
        return batch.with_extra(prompt=1 / ops.group_size(batch.group).to(share.dtype))

    def loss(self, models: Models, batch: Groups) -> Loss:
        logp = models.policy.log_prob(batch)  # [B, T]
        advantage, group = batch.credit[:, 0], batch.group
        score = batch.mean_per_row(logp)
        push = self.score_temperature * log_mean_exp(score / self.score_temperature, advantage < 0, group)
        drift = self._drift(batch, logp)
        hinge = (drift - self.divergence).clamp(min=0)
        return Loss(right=batch.mean(-advantage.clamp(min=0) * score, weight="prompt"),
                    wrong=batch.mean(push, weight="prompt"),
                    divergence=batch.mean(self.penalty / 2 * hinge**2, weight="prompt")
                    ).log(divergence=batch.mean(drift))

    def _drift(self, batch: Groups, logp: Tensor) -> Tensor:
        """D of each row's prompt, [B]."""
        tokens = ops.group_mean(batch.mask.sum(1).to(logp.dtype), batch.group)
        return ops.group_mean(-batch.log_ratio(logp).sum(1), batch.group) / tokens.clamp(min=1e-30)


def log_mean_exp(x: Tensor, chosen: Tensor, group: Tensor) -> Tensor:
    """log of the mean of exp x over the chosen rows of each row's group, [B]; 0 for a group with none."""
    _, index = group.unique(return_inverse=True)
    level = torch.where(chosen, x.detach(), -torch.inf)
    top = torch.full_like(level, -torch.inf).scatter_reduce(0, index, level, "amax")[index]
    top = torch.where(top.isfinite(), top, 0.0)
    share = ops.group_mean(chosen.to(x.dtype), group)
    mean = ops.group_mean(torch.where(chosen, torch.where(chosen, x - top, 0.0).exp(), 0.0), group)
    some = share > 0
    return torch.where(some, top + (torch.where(some, mean, 1.0) / torch.where(some, share, 1.0)).log(), 0.0)
