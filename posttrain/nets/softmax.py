"""The softmax of logits, for who draws from it and for who learns of it: both get the same, to the last bit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from posttrain.nets.kernels import Kernels, any_kernels
from posttrain.nets.precision import at_least_fp32


class Softmax(NamedTuple):
    """Of logits z [n, V] at a temperature: p = mass / total, mass = e^((z − most) / temperature); fp32 or wider."""

    most: Tensor  # [n]
    total: Tensor  # [n]
    mass: Tensor | None = None  # [n, V]
    along: Tensor | None = None  # [n]: Σ mass (z − most) / temperature

    def log_prob(self, z: Tensor, index: Tensor, temperature: float) -> Tensor:
        """Of one token of each row, index [n]: [n]."""
        chosen = z.gather(1, index[:, None])[:, 0].to(self.most.dtype)
        return (chosen - self.most) * (1 / temperature) - self.total.log()

    @property
    def entropy(self) -> Tensor:
        """[n] nats, of one made with `along`."""
        assert self.along is not None
        return self.total.log() - self.along / self.total


def softmax(z: Tensor, temperature: float, mass: bool = False, along: bool = False) -> Softmax:
    """z [n, V], with what is asked for beside `most` and `total`."""
    if (kernels := _kernels(z)) is not None:
        most, total = torch.empty(2, len(z))
        made = Softmax(most, total, torch.empty(z.shape) if mass else None, torch.empty(len(z)) if along else None)
        kernels.masses(z, 1 / temperature, *made)
        return made
    s = at_least_fp32(z)
    most = s.amax(-1)
    s = (s - most[:, None]) * (1 / temperature)
    e = s.exp()
    return Softmax(most, e.sum(-1), e if mass else None, torch.linalg.vecdot(e, s) if along else None)


def softmax_drawn(z: Tensor, temperature: float, uniform: Tensor) -> tuple[Softmax, Tensor] | None:
    """`softmax` of z [n, V] without its mass, and the token [n] at quantile uniform [n] of it, where that compiles."""
    if (kernels := _kernels(z)) is None:
        return None
    most, total = torch.empty(2, len(z))
    return Softmax(most, total), kernels.draw(z, 1 / temperature, uniform, most, total)


def draws_at_once(head: Tensor) -> bool:
    """Whether `softmax_drawn` serves the logits that this [V, d] gives."""
    return _kernels(head) is not None


def softmax_back(z: Tensor, temperature: float, soft: Softmax, target: Tensor, g: Tensor, h: Tensor | None = None
                 ) -> Tensor:
    """The gradient to z [n, V], which it may overwrite, of g log p[target] + h entropy: target, g, h [n]."""
    if (kernels := _kernels(z)) is not None:
        kernels.masses_back(z, 1 / temperature, soft.most, soft.total, target, g.contiguous(),
                            None if h is None else soft.entropy, h)
        return z
    s = (at_least_fp32(z) - soft.most[:, None]) * (1 / temperature)
    p = s.exp() / soft.total[:, None]
    dz = p * -g[:, None]  # d log p_t / dz = onehot − p
    dz.scatter_add_(1, target[:, None], g[:, None])
    if h is not None:  # dH / dz = −p (log p + H)
        dz -= p * (s + (soft.entropy - soft.total.log())[:, None]) * h[:, None]
    return dz.mul_(1 / temperature).to(z.dtype)


def _kernels(z: Tensor) -> Kernels | None:
    return any_kernels(z.dtype) if z.device.type == "cpu" and z.is_contiguous() else None
