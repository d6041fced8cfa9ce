"""C51: learn how the return is distributed over fixed atoms, not only its mean.

    p(s, a) = softmax of N logits, of the atoms z_1 … z_N, evenly spaced in [v, V];  Q(s, a) = Σ_i z_i p_i(s, a)
    a*      = argmax_a' Q̄(s', a')
    m       = Π ( r + γⁿ (1 − d) z ),  with the probabilities p̄(s', a*)
    L       = −mean w Σ_i m_i log p_i(s, a)

Π deals each share of the moved mass to the two nearest atoms.  Returns outside [v, V] cannot be told apart.

Deviations: those of DQN.  A time limit does not end the return.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Count, Models, Paper, Transitions, by_kind
from posttrain.core.errors import UserError
from posttrain.methods.off_policy.dqn import NumberedQ


@dataclass(frozen=True, kw_only=True)
class C51(NumberedQ):
    paper = Paper("1707.06887", "Bellemare, Dabney & Munos, 2017", parent="dqn")
    defaults = by_kind(control={  # what 1 or −1 for each action comes to at γ = 0.99
        **NumberedQ.defaults["control"], "low": -100.0, "high": 100.0})

    atoms: Count = 51  # N; paper sec. 5
    low: float = -10.0  # v, the least return; paper sec. 5, where rewards are within ± 1
    high: float = 10.0  # V, the greatest return; paper sec. 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.atoms < 2:
            raise UserError(f"atoms = {self.atoms}: must be ≥ 2")
        if self.high <= self.low:
            raise UserError(f"high = {self.high:g}: must be above low = {self.low:g}")

    @property
    def support(self) -> Tensor:
        return torch.linspace(self.low, self.high, self.atoms)

    def after(self, models: Models, batch: Transitions) -> tuple[Tensor, Tensor]:
        """The returns that the next state may bring and how probable they are, both [B, M]."""
        p = models.q_target.every(batch.next_obs).softmax(-1).mean(0)  # [B, A, N]
        best = (p @ models.q.support).argmax(-1)
        return models.q.support.expand(len(best), -1), p[torch.arange(len(best)), best]

    @torch.no_grad()
    def target(self, models: Models, batch: Transitions) -> Tensor:
        """m, [B, N]."""
        z, p = self.after(models, batch)
        moved = ops.td_target(batch.reward[:, None].expand_as(z), batch.terminated[:, None].expand_as(z), z,
                              self.discount**batch.spans[:, None])
        return ops.project(moved, p, models.q.support)

    def each(self, models: Models, batch: Transitions, q: Tensor) -> Tensor:
        return -(self.target(models, batch) * q.log_softmax(-1)).sum(-1).sum(0)
