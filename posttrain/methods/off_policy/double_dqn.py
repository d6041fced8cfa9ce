"""Double DQN: the network names the next action, its slower copy says what that action is worth.

    y = r + γⁿ (1 − d) Q̄(s', argmax_a' Q(s', a'))

The rest is DQN's.  A maximum over estimates takes their errors for gains; two estimates seldom err on one action.

Deviations: those of DQN.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.core import Models, Paper, Transitions
from posttrain.methods.off_policy.dqn import DQN


@dataclass(frozen=True, kw_only=True)
class DoubleDQN(DQN):
    paper = Paper("1509.06461", "van Hasselt, Guez & Silver, 2015", parent="dqn")

    def value_after(self, models: Models, batch: Transitions) -> Tensor:
        best = models.q.every(batch.next_obs)[0].argmax(-1)
        value: Tensor = models.q_target.every(batch.next_obs)[0, torch.arange(len(best)), best]
        return value
