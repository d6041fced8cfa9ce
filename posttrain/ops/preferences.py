"""Which of two rows of a group is preferred, and what that says about a margin."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Pairs(NamedTuple):
    """P pairs of rows of one group, the first preferred.

    winner, loser: [P] long, row indices.
    weight: [P], in (0, 1]: pairs that stand for one choice among equals share its weight.
    """

    winner: Tensor
    loser: Tensor
    weight: Tensor

    def margin(self, x: Tensor) -> Tensor:
        """x_winner − x_loser: x [B] -> [P]."""
        return x[self.winner] - x[self.loser]

    def share(self, rows: int) -> Tensor:
        """[rows]: the weight that each row brings in as a winner; its sum is the number of choices."""
        return self.weight.new_zeros(rows).index_add_(0, self.winner, self.weight)

    def involved(self, rows: int) -> Tensor:
        """[rows] bool: the rows that stand in some pair."""
        found = torch.zeros(rows, dtype=torch.bool)
        found[self.winner] = True
        found[self.loser] = True
        return found


def every_pair(reward: Tensor, group: Tensor) -> Pairs:
    """Every (i, j) of one group with r_i > r_j, each a choice of its own: reward, group [B]."""
    assert reward.dim() == 1 and reward.shape == group.shape, (reward.shape, group.shape)
    winner, loser = ((group[:, None] == group) & (reward[:, None] > reward)).nonzero(as_tuple=True)
    return Pairs(winner, loser, torch.ones_like(winner, dtype=reward.dtype))


def best_and_worst(reward: Tensor, group: Tensor) -> Pairs:
    """The best of each group over its worst, one choice a group; none where all are equal: reward, group [B].

    Equal bests and equal worsts share the weight, so the order of rows does not matter.
    """
    winner, loser, _ = every_pair(reward, group)
    index = group.unique(return_inverse=True)[1]
    high = torch.full_like(reward, -torch.inf).scatter_reduce_(0, index, reward, "amax")[index]
    low = torch.full_like(reward, torch.inf).scatter_reduce_(0, index, reward, "amin")[index]
    kept = (reward[winner] == high[winner]) & (reward[loser] == low[loser])
    winner, loser = winner[kept], loser[kept]
    equals = torch.zeros_like(reward).index_add_(0, index[winner], torch.ones_like(winner, dtype=reward.dtype))
    return Pairs(winner, loser, 1 / equals[index[winner]])


def logistic(margin: Tensor, smoothing: float = 0.0) -> Tensor:
    """−(1 − ε) log σ(m) − ε log σ(−m): Bradley–Terry, with a share ε of labels taken to be flipped (cDPO)."""
    return -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)


def squared(margin: Tensor, target: float) -> Tensor:
    """(m − target)²: IPO (Azar et al. 2023, 2310.12036, eq. 17), which stops at a margin instead of running to ∞."""
    return (margin - target) ** 2
