"""BAPO: move the clip bounds until positive advantages supply their share of the update.

    ρ_it  = π(y_it) / μ(y_it),  μ the policy that sampled
    P     = Σ ρ Â over Â > 0, ρ ≤ c_high;  N = Σ ρ |Â| over Â < 0, c_low ≤ ρ ≤ c
    while P / (P + N) < ρ₀: raise c_low to its end first, then c_high to its
    L     = −mean_it min( ρ_it Â_i, clip(ρ_it, c_low, c_high) Â_i ), and not below c Â_i where Â_i < 0

P and N are what the tokens that clipping leaves a gradient add to the update.  With stale samples N outweighs P under
PPO's fixed bounds, and the entropy falls; here unlikely bad tokens are dropped and likely good ones let in.

Deviations: in the released code N = Σ max(ρ, c_low) |Â|, which grows as c_low is raised, so that the search for
c_low never succeeds and always ends at its end; here only tokens with a gradient count.  It searches anew for every
micro-batch; here once per batch, before its first update.  ρ₀ is a share of the total, as its README says, 0.5
standing for the ratio 1 of its configuration.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, Paper

STEP = 0.05  # of either bound, a ratio; the released configuration


@dataclass(frozen=True, kw_only=True)
class BAPOAdaptiveClip(Method[Groups]):
    paper = Paper("2510.18927", "Xi et al., 2025", parent="dapo")

    target: Fraction = 0.5  # ρ₀, of the update's size; README
    low_start: Fraction = 0.6  # c_low before the search, a ratio; README
    low_end: Fraction = 0.9  # c_low at most; README
    high_start: Annotated[float, Ge(1)] = 1.2  # c_high before the search, a ratio; README
    high_end: Annotated[float, Ge(1)] = 3.0  # c_high at most; README
    ratio_bound: Annotated[float, Ge(1)] = 3.0  # c, a ratio; dual clip, the released default

    def initial_state(self) -> dict[str, float]:
        return {"clip_low": self.low_start, "clip_high": self.high_start}

    def prepare(self, models: Models, batch: Groups) -> Groups:
        batch = batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))
        logp = models.policy.log_prob(batch) if batch.logp_old is None else batch.logp_old
        low, high = self.bounds(sampler_ratio(batch, logp), torch.where(batch.mask, batch.credit, 0.0))
        models.state.update(clip_low=low, clip_high=high)
        return batch

    def bounds(self, ratio: Tensor, advantage: Tensor) -> tuple[float, float]:
        """The least (c_low, c_high) that reach the target, or their ends; ratio, advantage [B, T]."""
        low, high = self.low_start, self.high_start
        enough = self.target - 1e-6  # P = N must not be a matter of rounding
        while low < self.low_end and self.positive_share(ratio, advantage, low, high) < enough:
            low = min(low + STEP, self.low_end)
        while high < self.high_end and self.positive_share(ratio, advantage, low, high) < enough:
            high = min(high + STEP, self.high_end)
        return low, high

    def positive_share(self, ratio: Tensor, advantage: Tensor, low: float, high: float) -> float:
        """P / (P + N); 1 where nothing pushes either way."""
        push = ratio * advantage
        positive = float(push[(advantage > 0) & (ratio <= high)].sum())
        negative = -float(push[(advantage < 0) & (ratio >= low) & (ratio <= self.ratio_bound)].sum())
        return positive / (positive + negative) if positive + negative else 1.0

    def silent(self, batch: Groups) -> Tensor:
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = sampler_ratio(batch, models.policy.log_prob(batch))
        low, high = models.state["clip_low"], models.state["clip_high"]
        gain = ops.dual_clipped_gain(ratio, batch.credit, 1 - low, high - 1, self.ratio_bound)
        return Loss(policy=batch.mean(-gain)).log(ratio=batch.mean(ratio))


def sampler_ratio(batch: Groups, logp: Tensor) -> Tensor:
    """π / μ of every decision, [B, T], within e^±20; 1 where masked."""
    return torch.where(batch.mask, logp - batch.logp_behaviour, 0.0).clamp(-20, 20).exp()
