"""QR-DQN: learn the quantiles of the return, wherever they lie.

    Q(s, a) = 1/N Σ_i θ_i(s, a),    a* = argmax_a' Q̄(s', a')
    y_j     = r + γⁿ (1 − d) θ̄_j(s', a*)
    L       = mean w Σ_i 1/N Σ_j | τ_i − 1[u_ij < 0] | h(u_ij),    u_ij = y_j − θ_i(s, a),  τ_i = (i − ½) / N

h is DQN's.  Where C51 moves probability between fixed atoms, this moves N atoms of one probability, so that no range of
returns has to be known.

Deviations: those of DQN.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Count, Models, Paper, Positive, Transitions
from posttrain.methods.off_policy.dqn import NumberedQ


@dataclass(frozen=True, kw_only=True)
class QRDQN(NumberedQ):
    paper = Paper("1710.10044", "Dabney et al., 2017", parent="c51")

    atoms: Count = 200  # N; paper sec. 5
    error_limit: Positive = 1.0  # c, of an error, beyond which its slope is constant; paper sec. 5

    @torch.no_grad()
    def target(self, models: Models, batch: Transitions) -> Tensor:
        """y, [B, N]."""
        after = models.q_target.every(batch.next_obs)[0]  # [B, A, N]
        best = after.mean(-1).argmax(-1)
        z = after[torch.arange(len(best)), best]
        return ops.td_target(batch.reward[:, None].expand_as(z), batch.terminated[:, None].expand_as(z), z,
                             self.discount**batch.spans[:, None])

    def each(self, models: Models, batch: Transitions, q: Tensor) -> Tensor:
        return ops.quantile_huber(q[0], self.target(models, batch), self.error_limit)
