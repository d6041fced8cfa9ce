"""D3S: learn from the completions that spread the advantage most and from their tokens of largest |Â| times entropy.

    Â_i   = (r_i − mean r) / (std r + 1e-4)                within the group of one prompt's n completions
    S     = the ⌈κ n⌉ completions of largest Var(Â):       the k lowest and ⌈κ n⌉ − k highest, for the best k
    keep_it = 1[ i ∈ S and |Â_i| H_it is among the share ρ of largest in the batch ],  H_it: entropy at the token
    ρ_it  = π(y_it) / π_old(y_it)
    L     = −mean_{i ∈ S} mean_{t kept} min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i )
    κ, ρ  rise linearly from their first values to 1 over the first N batches

GRPO on a subset; κ = ρ = 1 is GRPO without the KL term.

Deviations: completions with equal rewards at the edge of S share its places, which is the mean over random choices
and does not depend on their order.  The paper also pools completions across groups, and takes GSPO as a base; this is
the choice within groups, on GRPO.  No code was released and the schedule was not found: its shape, κ, ρ and N are
assumptions.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Count, Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class D3S(Method[Groups]):
    paper = Paper("2509.22115", "Wang et al., 2025", parent="grpo")

    rows_kept: Fraction = 0.5  # κ, share of completions at first; assumed
    tokens_kept: Fraction = 0.5  # ρ, share of their tokens at first; assumed
    relax_batches: Count = 100  # N, batches until all are kept; assumed
    clip_low: Fraction = 0.2  # ε_low, per token; PPO's default
    clip_high: NonNegative = 0.2  # ε_high, per token; PPO's default

    def initial_state(self) -> dict[str, float]:
        return {"relaxed": 0.0}  # share of the schedule that has passed

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """reward [B] -> advantage [B], and in `extra` kept [B, T]: each completion's weight spread over its tokens."""
        relaxed = models.state["relaxed"]
        models.state["relaxed"] = min(1.0, relaxed + 1 / self.relax_batches)
        batch = batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))
        rows = widest(batch.reward, batch.group, 1 - (1 - self.rows_kept) * (1 - relaxed))
        entropy = models.policy.score(batch, entropy=True).entropy  # [B, T]
        candidates = batch.mask & (rows > 0)[:, None]
        chosen = largest(batch.credit.abs() * entropy, candidates, 1 - (1 - self.tokens_kept) * (1 - relaxed))
        return batch.with_extra(kept=chosen * (rows / chosen.sum(1).clamp(min=1))[:, None])

    def silent(self, batch: Groups) -> Tensor:
        return (batch.credit.eq(0) | batch.extra["kept"].eq(0)).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high)
        loss = Loss(policy=batch.mean(-gain, weight="kept"))
        return loss.log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))


def widest(reward: Tensor, group: Tensor, share: float) -> Tensor:
    """Weight in [0, 1] of each row in its group's subset of largest variance: reward, group [B] -> [B].

    The subset has ⌈share · n⌉ rows, at least two where there are two.
    """
    weight = torch.zeros_like(reward)
    for unit in group.unique():
        own = group == unit
        ordered = reward[own].double().sort().values
        n = len(ordered)
        m = min(n, max(2, math.ceil(share * n - 1e-9)))
        spread = [float(torch.cat([ordered[:k], ordered[n - m + k :]]).var(correction=0)) for k in range(m + 1)]
        low = max(range(m + 1), key=spread.__getitem__)
        weight[own] = ops.lowest(reward[own], low) + ops.lowest(-reward[own], m - low)
    return weight


def largest(score: Tensor, mask: Tensor, share: float) -> Tensor:
    """The masked decisions whose score is among the share of largest, ties included: score, mask [B, T] -> bool."""
    scores = score[mask].sort(descending=True).values
    if not len(scores):
        return mask
    return mask & (score >= scores[max(1, math.ceil(share * len(scores) - 1e-9)) - 1])
