"""B²-DiffuRL: learn the last denoising steps first, from the best and the worst of pictures that branch before them.

    z_i = (r_i − mean r) / (std r + 1e-8)                           within the group of one prompt and prefix
    Â_i = clip( z_i, −A, A )   for the best if z ≥ τ, for the worst if z < −τ; the others are left out
    L   = −mean_i 1/|y_i| Σ_t min( ρ_it Â_i, clip(ρ_it, 1 − ε, 1 + ε) Â_i )        over those that are kept

One reward at the end of twenty steps says little of the first.  A group shares all noise but that of an interval of
last steps, so that its rewards differ by those alone, and only those are learnt; the interval grows to the whole over
the run.  Both are options of the source, whose defaults this method changes for pictures.

Deviations: z is over the group; the authors add the last eight rounds of the same prompt.  Equal bests, or worsts,
share one's weight, where the authors take the first.  Two epochs a batch in their script, one here unless told so.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, NonNegative, Paper, Positive, by_kind


@dataclass(frozen=True, kw_only=True)
class B2DiffuRL(Method[Groups]):
    paper = Paper("2503.11240", "Hu et al., 2025", parent="ddpo")
    defaults = by_kind(pictures={"interval": 0.7})

    clip: Positive = 0.1  # ε, per step; released default
    threshold: NonNegative = 0.5  # τ, deviations; released script
    max_advantage: Positive = 5.0  # A, deviations; released default

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Advantages [B], and how much each row counts, [B]: 0 for what is neither best nor worst."""
        z = ops.group_normalize(batch.reward, batch.group, 1e-8)
        pairs = ops.best_and_worst(batch.reward, batch.group)
        best, worst = (p.share(len(batch)) for p in (pairs, pairs._replace(winner=pairs.loser)))
        kept = best * (z >= self.threshold) + worst * (z < -self.threshold)
        return batch.replace(advantage=z.clamp(-self.max_advantage, self.max_advantage)).with_extra(kept=kept)

    def silent(self, batch: Groups) -> Tensor:
        """What is left out."""
        return batch.extra["kept"].eq(0)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        gain, clipped = ops.clipped_gain(ratio, batch.credit, self.clip, self.clip)
        loss = Loss(policy=batch.mean(batch.mean_per_row(-gain), "kept"))
        return loss.log(ratio=batch.mean(ratio), clipped=batch.mean(clipped))
