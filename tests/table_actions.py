"""Tables beside those of table_control: of deterministic policies, and of Q over numbered actions."""

from __future__ import annotations

from typing import Any

import torch
from table_control import Table
from torch import Tensor, nn


class Fixed(nn.Module):
    """π(s): one number of each state."""

    def __init__(self, *actions: float) -> None:
        super().__init__()
        self.actions = nn.Parameter(torch.tensor(actions, dtype=torch.float64))

    @property
    def module(self) -> nn.Module:
        return self

    def mode(self, obs: Tensor) -> Tensor:
        return self.actions[obs[:, 0].long()][:, None]


class Sum(Table):
    """Q_k(s, a) = its number of the state, plus a."""

    def forward(self, obs: Tensor, action: Tensor | None = None) -> Tensor:
        assert action is not None
        return super().forward(obs) + action[:, 0]

    def fixed(self, obs: Tensor, action: Tensor) -> Tensor:
        return super().forward(obs).detach() + action[:, 0]


class Numbered(nn.Module):
    """Q_k(s, ·): numbers of each state and action [K, S, A], or N atoms of each [K, S, A, N]."""

    def __init__(self, values: Any, support: Tensor | None = None) -> None:
        super().__init__()
        self.values_ = nn.Parameter(torch.as_tensor(values, dtype=torch.float64))
        self.support = support

    @property
    def module(self) -> nn.Module:
        return self

    def every(self, obs: Tensor) -> Tensor:
        return self.values_[:, obs[:, 0].long()]

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.every(obs)[:, torch.arange(len(action)), action]

    def expected(self, out: Tensor) -> Tensor:
        if self.values_.dim() == 3:
            return out
        return out.mean(-1) if self.support is None else out.softmax(-1) @ self.support
