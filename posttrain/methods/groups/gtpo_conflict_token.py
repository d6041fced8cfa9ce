"""GTPO (conflict tokens): never push down the tokens that good and bad answers share at the same place.

    Â_i  = (r_i − mean r) / (std r + 1e-4)                          within the group of one prompt
    λ_it = 2 where y_it is in conflict and Â_i > 0, 0 where it is and Â_i < 0, else 1
    L    = −mean_i 1/|y_i| Σ_t ρ_it λ_it δ_i (Â_i − γ H̄_i)          H̄_i: mean entropy over the tokens of y_i
    δ_i  = 0 where H̄_i > ln 2 and the initial policy's mean was not above ln 2, else 1

A token is in conflict where it begins its answer, or ends it, as part of a run of tokens that answers of positive and
of negative advantage both have at that distance from that end: format tags, mostly, which GRPO wears away when most
answers are wrong.  Dropping uncertain answers stands in the place of the KL term.

Deviations: the initial policy's entropy is that of the first batch.  The released code filters whatever it was, at 0.7;
multiplies λ by itself where both runs meet; and divides an answer's loss by the number of its conflict tokens, of which
the paper's objective has nothing.  A tool's tokens neither break a run nor count.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain import ops
from posttrain.core import Groups, Loss, Method, Models, NonNegative, Paper

LIMIT = math.log(2)  # nats; above it no token need have a probability over one half
AMPLIFIED = 2.0  # λ of a good answer's conflict tokens


@dataclass(frozen=True, kw_only=True)
class GTPOConflictToken(Method[Groups]):
    paper = Paper("2508.03772", "Simoni et al., 2025", parent="grpo")

    entropy_coef: NonNegative = 0.1  # γ, per nat; released code

    def initial_state(self) -> dict[str, float]:
        return {"initial_entropy": -1.0}  # nats; −1 before the first batch

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """reward [B] -> advantage [B, T]: shaped by entropy, and weighed where good and bad answers agree."""
        entropy = batch.mean_per_row(models.policy.score(batch, entropy=True).entropy)  # H̄, [B]
        if models.state["initial_entropy"] < 0:
            models.state["initial_entropy"] = max(0.0, float(entropy.mean()))
        watched = models.state["initial_entropy"] <= LIMIT
        advantage = ops.group_normalize(batch.reward, batch.group)
        clash = conflicts(batch, advantage.sign())  # [B, T]
        weight = torch.where(advantage > 0, AMPLIFIED, torch.where(advantage < 0, 0.0, 1.0))
        shaped = torch.where(watched & (entropy > LIMIT), 0.0, advantage - self.entropy_coef * entropy)
        credit = shaped[:, None] * torch.where(clash, weight[:, None].to(shaped), 1.0)
        return batch.replace(advantage=credit).with_extra(conflict=clash.to(credit))

    def silent(self, batch: Groups) -> Tensor:
        """Rows that are filtered out, or in conflict from end to end."""
        return batch.credit.eq(0).all(1)

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        loss = Loss(policy=batch.mean(batch.mean_per_row(-ratio * batch.credit)))
        return loss.log(ratio=batch.mean(ratio), conflict=batch.mean(batch.extra["conflict"]))


def conflicts(batch: Groups, sign: Tensor) -> Tensor:
    """The decisions in conflict, [B, T] bool; sign [B] of each row's advantage."""
    mask = batch.mask
    begins = run(shared(batch, mask.cumsum(1), sign) | ~mask)
    ends = run((shared(batch, mask.flip(1).cumsum(1).flip(1), sign) | ~mask).flip(1)).flip(1)
    return (begins | ends) & mask


def shared(batch: Groups, place: Tensor, sign: Tensor) -> Tensor:
    """Which decisions rows of both signs in the group have at that place, [B, T] bool; place [B, T] long."""
    mask = batch.mask
    keys = torch.stack([batch.group[:, None].expand(mask.shape), place, batch.extra["token"]], -1)[mask]  # [n, 3]
    found, index = keys.unique(dim=0, return_inverse=True)
    own = sign[:, None].expand(mask.shape)[mask]
    good, bad = mask.new_zeros(len(found)), mask.new_zeros(len(found))
    good[index[own > 0]] = True
    bad[index[own < 0]] = True
    return torch.zeros_like(mask).masked_scatter(mask, (good & bad)[index])


def run(x: Tensor) -> Tensor:
    """True from the first column for as long as x is: [B, T] bool."""
    return x.long().cumprod(1).bool()
