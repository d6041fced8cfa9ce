"""OS-C51: only the next step is random; what follows it enters the law of returns by its mean.

    m = Π ( r + γⁿ (1 − d) max_a' Q̄(s', a') )        one place, with probability 1
    L = −mean w Σ_i m_i log p_i(s, a)

The rest is C51's.  Where C51's target depends on which of two equally good actions comes next, this one does not, so
that control converges too.

Deviations: those of C51.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.core import Models, Paper, Transitions
from posttrain.methods.off_policy.c51 import C51


@dataclass(frozen=True, kw_only=True)
class OSC51(C51):
    paper = Paper("2304.14421", "Achab et al., 2023", parent="c51")

    def after(self, models: Models, batch: Transitions) -> tuple[Tensor, Tensor]:
        best = models.q.expected(models.q_target.every(batch.next_obs)).mean(0).amax(-1, keepdim=True)  # [B, 1]
        return best, torch.ones_like(best)
