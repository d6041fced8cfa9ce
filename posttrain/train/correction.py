"""The correction for a sampler that is not quite the policy: a weight on every sampled decision's gradient.

    r_t = π_old(a_t) / μ_t(a_t)                         μ: what the token was drawn from
    w_t = min(r_t, C)                                   truncate
    w_t = r_t · 1[1/C ≤ r_t ≤ C]                        mask
    ∇L  = Σ_t w_t · ∂L/∂log π(a_t) · ∇log π(a_t)

Where truncation or bias make the sampler's q another than the p that it recorded, log μ is log p − `log_kept`: a token
out of a set that holds the mass m of p weighs m.  What the set left out is never sampled, and no weight brings it back.

In a loss that is a sum over decisions this is the weight on each summand; values and metrics stay as they are.  It sits
on log π, where every method meets the policy, so no method knows of it.  What a method takes over all choices at once,
entropies and full divergences, is no estimate from the sampled one and has no weight.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Batch, Policy, Score
from posttrain.core.policy import Predictions

WEIGHTS = {"truncate": ops.truncated_weight, "mask": ops.masked_weight}


class Corrected:
    """A policy whose log-probabilities pass on weighted gradients, and that notes the weights."""

    def __init__(self, policy: Policy, kind: str, limit: float) -> None:
        """kind: a key of WEIGHTS.  limit: C ≥ 1."""
        self.policy, self.decision, self.module, self.split = policy, policy.decision, policy.module, policy.split
        self.weight: Callable[[Tensor], Tensor] = partial(WEIGHTS[kind], limit=limit)
        self.told = f"min(r, {limit:g})" if kind == "truncate" else f"r where 1/{limit:g} ≤ r ≤ {limit:g}, else 0"
        self._reset()

    def log_prob(self, batch: Batch) -> Tensor:
        return self.score(batch).log_prob

    def score(self, batch: Batch, entropy: bool = False) -> Score:
        score = self.policy.score(batch, entropy)
        if not torch.is_grad_enabled():
            return score
        here = score.log_prob.detach()
        sampled = batch.mask & ~batch.logp_behaviour.isnan()  # what was given has no sampler to correct for
        drawn = batch.logp_behaviour - batch.extra.get("log_kept", torch.zeros(()))  # log μ
        log_ratio = (here if batch.logp_old is None else batch.logp_old) - drawn
        weight = torch.where(sampled, self.weight(torch.where(sampled, log_ratio, 0.0)), 1.0)
        self._note(log_ratio[sampled], weight[sampled])
        return score._replace(log_prob=here + weight * (score.log_prob - here))

    def predict(self, batch: Batch) -> Predictions:
        return self.policy.predict(batch)

    def metrics(self) -> dict[str, float]:
        """Of the scores with gradient since this was last asked: mean weight, share of ratios out of bounds."""
        count = max(self.decisions, 1)
        found = {"weight": self.total / count, "weight_cut": self.cut / count} if self.decisions else {}
        self._reset()
        return found

    def _note(self, log_ratio: Tensor, weight: Tensor) -> None:
        self.total += float(weight.sum())
        self.cut += float((weight != log_ratio.exp()).sum())
        self.decisions += len(weight)

    def _reset(self) -> None:
        self.total, self.cut, self.decisions = 0.0, 0.0, 0
