"""RLEP: put right answers of an earlier run into every group, as anchors beside the fresh samples.

    Â_i  = (r_i − mean r) / (std r + 1e-4)                          within a prompt's samples and replays together
    ρ_it = π(y_it) / π_old(y_it)                                    of replays too, π_old the weights before the update
    g_it = min( ρ_it Â_i, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_i ), and at least c Â_i where Â_i < 0
    L    = −mean_it g_it

One run finds right answers; a second starts afresh from the base model and is shown a few of them for each prompt.  In
a group whose samples are all wrong the replays alone are pulled up, and the samples share what pushes down.  Replays
are treated as if the policy had made them: no ratio to whoever did.  No KL term.

Replays are the rows that were given and are worth more than 0; given rows of no worth have no part in anything.

Deviations: which replays stand beside a prompt is the task's choice; the authors draw two at every step from a pool,
and fill up with empty answers, which count as failures, where the pool is short.  Their penalty on overlong answers is
`dapo`'s and is left out.  They take eight updates from a batch; with one the ratio is always 1.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper


@dataclass(frozen=True, kw_only=True)
class RLEP(Method[Groups]):
    paper = Paper("2507.07451", "Zhang et al., 2025", parent="dapo")
    learns_from = "both"

    clip_low: Fraction = 0.2  # ε_low, per token; released script
    clip_high: NonNegative = 0.28  # ε_high, per token; released script
    ratio_bound: Annotated[float, Ge(1)] = 10.0  # c, a ratio; dual clip, released script

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """Hold samples and replays against their group: reward [B] -> advantage [B]; `taking_part` [B, T]."""
        part = ~batch.extra["given"] | (batch.reward > 0)
        advantage = torch.zeros_like(batch.reward)
        advantage[part] = ops.group_normalize(batch.reward[part], batch.group[part])
        taking_part = part[:, None].expand(batch.mask.shape).to(advantage)
        return batch.replace(advantage=advantage).with_extra(taking_part=taking_part)

    def silent(self, batch: Groups) -> Tensor:
        """A group of equal rewards pulls in no direction, nor does a row without a part."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        gain = ops.dual_clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high, self.ratio_bound)
        loss = Loss(policy=batch.mean(-gain, weight="taking_part"))
        return loss.log(ratio=batch.mean(ratio), replayed=batch.mean(batch.extra["given"].to(ratio.dtype)))
