"""From rewards to advantages, group by group.  `group` [B] long may be unordered and of unequal sizes."""

from __future__ import annotations

import torch
from torch import Tensor


def _sizes(group: Tensor) -> tuple[Tensor, Tensor]:
    """Dense group index [B] and the size of every row's group [B]."""
    _, index, counts = group.unique(return_inverse=True, return_counts=True)
    return index, counts[index]


def group_mean(x: Tensor, group: Tensor) -> Tensor:
    """Mean of each row's own group: x [B], group [B] -> [B]."""
    assert x.dim() == 1 and x.shape == group.shape, (x.shape, group.shape)
    index, size = _sizes(group)
    return torch.zeros_like(x).index_add_(0, index, x)[index] / size


def group_std(x: Tensor, group: Tensor) -> Tensor:
    """Sample standard deviation (n − 1) of each row's own group, [B]; 0 for a group of one."""
    _, size = _sizes(group)
    variance = group_mean((x - group_mean(x, group)) ** 2, group) * size / (size - 1).clamp(min=1)
    return variance.sqrt()


def group_normalize(reward: Tensor, group: Tensor, epsilon: float = 1e-4) -> Tensor:
    """Â_i = (r_i − mean r) / (std r + ε) within each group: reward [B], group [B] -> [B].

    Equal rewards, and a group of one, give exactly 0.
    """
    centred = reward - group_mean(reward, group)
    spread = group_std(reward, group)
    return torch.where(is_constant(reward, group), 0.0, centred / (spread + epsilon))


def is_constant(x: Tensor, group: Tensor) -> Tensor:
    """[B] bool: whether every value of the row's group is the same, free of rounding."""
    assert x.dim() == 1 and x.shape == group.shape, (x.shape, group.shape)
    index, _ = _sizes(group)
    low = torch.full_like(x, torch.inf).scatter_reduce_(0, index, x, "amin")[index]
    high = torch.full_like(x, -torch.inf).scatter_reduce_(0, index, x, "amax")[index]
    return low == high


def group_center(reward: Tensor, group: Tensor) -> Tensor:
    """Â_i = r_i − mean r within each group, [B]: no division by the spread (Dr. GRPO, 2503.20783)."""
    return torch.where(is_constant(reward, group), 0.0, reward - group_mean(reward, group))


def leave_one_out(reward: Tensor, group: Tensor) -> Tensor:
    """Â_i = r_i − mean of the group's other rewards = n / (n − 1) (r_i − mean r), [B]; 0 for a group of one.

    RLOO: Kool et al. 2019; Ahmadian et al. 2024 (2402.14740), sec. 3.2.
    """
    _, size = _sizes(group)
    return group_center(reward, group) * size / (size - 1).clamp(min=1)


def batch_normalize(x: Tensor, mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """(x − mean) / (std + ε) over all the policy's decisions of the batch: x, mask [B, T] -> [B, T].

    0 where masked, and exactly 0 where all values are equal.
    """
    assert x.shape == mask.shape, (x.shape, mask.shape)
    count = mask.sum().clamp(min=1)
    centred = torch.where(mask, x - torch.where(mask, x, 0.0).sum() / count, 0.0)
    variance = (centred**2).sum() / (count - 1).clamp(min=1)
    equal = torch.where(mask, x, torch.inf).amin() == torch.where(mask, x, -torch.inf).amax()  # free of rounding
    return torch.where(equal, 0.0, centred / (variance.sqrt() + epsilon))


def group_size(group: Tensor) -> Tensor:
    """Number of rows in each row's own group: group [B] -> [B] long."""
    return _sizes(group)[1]


def group_share(label: Tensor, group: Tensor) -> Tensor:
    """Share of each row's own group that has its label: label, group [B] long -> [B] float64, in (0, 1]."""
    assert label.dim() == 1 and label.shape == group.shape, (label.shape, group.shape)
    pairs = torch.stack([group, label], 1)
    _, index, counts = pairs.unique(dim=0, return_inverse=True, return_counts=True)
    share: Tensor = counts[index].double() / group_size(group)
    return share


def between_groups(x: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sample standard deviation of one value per group, scalars: x, group [B], x constant within a group.

    Every group counts once, whatever its size; the deviation of a single group is 0.
    """
    assert x.dim() == 1 and x.shape == group.shape, (x.shape, group.shape)
    once = 1 / group_size(group).to(x.dtype)
    count = once.sum().round().clamp(min=1)
    mean = (once * x).sum() / count
    return mean, ((once * (x - mean) ** 2).sum() / (count - 1).clamp(min=1)).sqrt()


def covariance(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """(x − mean x) (y − mean y), the means over all the policy's decisions of the batch, [B, T]; 0 where masked."""
    assert x.shape == y.shape == mask.shape, (x.shape, y.shape, mask.shape)
    count = mask.sum().clamp(min=1)
    x, y = torch.where(mask, x, 0.0), torch.where(mask, y, 0.0)
    return torch.where(mask, (x - x.sum() / count) * (y - y.sum() / count), 0.0)
