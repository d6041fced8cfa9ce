"""ESRL: spend no update on the prompts that the policy already answers with confidence.

    p_it = max_a π_old(a | s_it)
    c_x  = mean over the answers to x of 1 + mean_t p_it exp(p_it)
    U'   = the prompts less the ⌈κ U⌉ with the highest c_x;   all below is of U' alone
    r_it = [t is the last] r_i − β ( log π_old(y_it) − log π_ref(y_it) )
    δ_it = r_it + γ V_old(s_i,t+1) − V_old(s_it),   V_old = 0 after the last decision
    G_it = Σ_l (γ λ)^l δ_i,t+l,   R_it = G_it + V_old(s_it)
    Â_it = (G_it − mean G) / (std G + 1e-8)                         over every decision of the batch
    ρ_it = π(y_it) / π_old(y_it)
    L_V  = ½ mean_it max( (V_it − R_it)², (clip(V_it, V_old ± ε_V) − R_it)² )
    L    = −mean_it min( ρ_it Â_it, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_it ) + L_V

Scored in one parallel pass over finished answers, without a graph through decoding.  What is left out counts neither in
the statistics of the advantages nor in any mean, and costs no training pass.

Deviations: this is the rule of the released code, for PPO on language models, where each prompt has one answer.  The
paper also draws fewer and cooler samples for such prompts, which is the source's business.  Prompts that tie at the
border all stay, and one prompt always does.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Models, Paper
from posttrain.methods.actor_critic.ppo import PPO

DECISIONS = 128  # predicted at a time


@dataclass(frozen=True, kw_only=True)
class ESRL(PPO):
    paper = Paper("2308.02223", "Wang et al., 2023", parent="ppo")

    drop: Fraction = 0.3  # κ, of the prompts; released code

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """PPO's credit for the prompts that stay; the others' decisions are masked."""
        confidence = ops.group_mean(peaks(models, batch), batch.group)
        each = torch.stack([confidence[batch.group == unit][0] for unit in batch.group.unique()])
        count = min(math.ceil(self.drop * len(each)), len(each) - 1)
        border = each.sort(descending=True).values[count]
        stays = confidence <= border + 1e-12 * border.abs()  # equal but for the order of a sum
        return super().prepare(models, batch.replace(mask=batch.mask & stays[:, None]))

    def silent(self, batch: Groups) -> Tensor:
        """What was left out."""
        return ~batch.mask.any(1)


def peaks(models: Models, batch: Groups) -> Tensor:
    """1 + mean_t p exp(p) of each answer, p the probability of the likeliest choice, [B]."""
    top = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for rows in models.policy.split(batch, False):
        part = batch.take(rows)
        predict, count = models.policy.predict(part), int(part.mask.sum())
        found = [predict(slice(at, at + DECISIONS)).amax(1).exp().to(top) for at in range(0, count, DECISIONS)]
        top[rows] = top[rows].masked_scatter(part.mask, torch.cat(found)) if found else top[rows]
    return 1 + batch.mean_per_row(top * top.exp())
