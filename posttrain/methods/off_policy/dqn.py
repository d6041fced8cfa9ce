"""DQN: a network learns what each numbered action is worth from a replay, against a slower copy of itself.

    y = r + γⁿ (1 − d) max_a' Q̄(s', a')
    L = mean w h(Q(s, a) − y),        h(u) = u² / 2 where |u| ≤ c, else c (|u| − c / 2)
    Q̄ ← Q                             after every m-th update

The replay breaks the likeness of what comes in a row, and the copy keeps the target still while Q moves.  n is 1 and w
is 1 unless the replay spans several actions, or draws by priority (the options `span` and `replay`).

Deviations: a perceptron over vectors, with options for its size, in place of the network over frames; AdamW in place of
RMSProp; the options replay_ratio and envs say how many actions come before an update, 1 rather than 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Count, Fraction, Loss, Method, Models, Paper, Positive, Transitions, by_kind


@dataclass(frozen=True, kw_only=True)
class DQN(Method[Transitions]):
    paper = Paper("https://doi.org/10.1038/nature14236", "Mnih et al., 2015")
    learns_from = "transitions"
    members: ClassVar[int] = 1
    replays = ("spans", "priorities")
    defaults = by_kind(control={  # ε over the first half of 20,000 actions, where the paper has 1 of 50 million
        "policy": "greedy", "width": 128, "activation": "relu", "batch_size": 64, "epsilon": 0.05,
        "epsilon_rounds": 10_000, "max_grad_norm": 10.0, "rounds": 1000, "lr_schedule": "constant"})

    error_limit: Positive = 1.0  # c, of an error, beyond which its slope is constant; paper, methods
    copy_every: Count = 500  # m, updates between copies; paper: 10,000
    discount: Fraction = 0.99  # γ; paper, extended table 1

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "q", "q_target")

    @property
    def lr_scale(self) -> Mapping[str, float]:
        return {"q": 1.0}

    def initial_state(self) -> dict[str, float]:
        return {"updates": 0.0}

    def value_after(self, models: Models, batch: Transitions) -> Tensor:
        """What the next state is worth, [B]."""
        best: Tensor = models.q_target.every(batch.next_obs)[0].amax(-1)
        return best

    def prepare(self, models: Models, batch: Transitions) -> Transitions:
        discount = self.discount**batch.spans
        target = ops.td_target(batch.reward, batch.terminated, self.value_after(models, batch), discount)
        if "importance" in batch.extra:
            batch = batch.with_extra(surprise=(models.q(batch.obs, batch.action)[0] - target).abs())
        return batch.with_extra(target=target)

    def loss(self, models: Models, batch: Transitions) -> Loss:
        q = models.q(batch.obs, batch.action)[0]  # [B]
        error = torch.nn.functional.huber_loss(q, batch.extra["target"], reduction="none", delta=self.error_limit)
        return Loss(q=batch.mean(batch.importance * error)).log(value=batch.mean(q))

    def after_step(self, models: Models, metrics: Mapping[str, float]) -> None:
        models.state["updates"] += 1
        if models.state["updates"] % self.copy_every == 0:
            ops.follow_(models.q_target.module, models.q.module, 1.0)
