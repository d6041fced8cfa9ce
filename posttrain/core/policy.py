"""What a method may ask of the networks: a policy scores its decisions, the rest are named in `Models`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from posttrain.core.batch import Batch


class Score(NamedTuple):
    """What a policy says of the decisions in a batch, with gradient."""

    log_prob: Tensor  # [B, T]; 0 where masked
    entropy: Tensor | None = None  # [B, T] nats, only where asked for


Predictions = Callable[[slice], Tensor]  # some of a batch's n masked decisions, in order -> log-probabilities [m, V]
Divergence = Callable[[Tensor, Tensor], Tensor]  # log p, log q [m, V] -> [m]

DECISIONS = 128  # compared at a time, so that no [decisions × choices] tensor is held for a whole batch


def compare(policy: Policy, other: Policy, batch: Batch, divergence: Divergence) -> Tensor:
    """A divergence between all that two policies say of each decision, [B, T], 0 where masked.

    Its gradient is the first policy's alone.
    """
    mine = policy.predict(batch)
    with torch.no_grad():
        theirs = other.predict(batch)

    def part(rows: slice) -> Tensor:
        with torch.no_grad():
            given = theirs(rows)
        return divergence(mine(rows), given)

    count = int(batch.mask.sum())
    slices = [slice(at, at + DECISIONS) for at in range(0, count, DECISIONS)]
    parts = [checkpoint(part, rows, use_reentrant=False) for rows in slices]
    if not parts:
        return 0 * policy.log_prob(batch)  # zeros, but with a gradient to run back through
    blank = batch.logp_behaviour.new_zeros(batch.mask.shape)
    return blank.masked_scatter(batch.mask, torch.cat(parts).to(blank))


def kl_from(policy: Policy, other: Policy, batch: Batch) -> Tensor:
    """KL(other ‖ policy) over all that could have been decided, [B, T], 0 where masked; gradient to `policy` alone.

    In a policy's own closed form, `kl_from(batch, other)`, where it has one; else over all choices listed.
    """
    own = getattr(policy, "kl_from", None)
    if own is None:
        return compare(policy, other, batch, lambda mine, theirs: (theirs.exp() * (theirs - mine)).sum(-1))
    found: Tensor = own(batch, other)
    return found


class Critic(Protocol):
    """Says what the state before each decision is worth."""

    @property
    def module(self) -> nn.Module:
        """Everything trainable."""
        ...

    def values(self, batch: Batch) -> Tensor:
        """V, [B, T], with gradient; 0 where masked."""
        ...

    def after(self, batch: Batch) -> Tensor:
        """V of the state after each row's last decision, [B]; 0 where the row is graded as it stands."""
        ...


class Policy(Protocol):
    """Makes decisions and can score them.

    `decision` names the unit in which clip ranges are meant ("token", "action", "denoising step").
    """

    decision: str

    @property
    def module(self) -> nn.Module:
        """Everything trainable."""
        ...

    def log_prob(self, batch: Batch) -> Tensor:
        """log π of every decision, [B, T], with gradient; the same frozen randomness for old, new and reference."""
        ...

    def score(self, batch: Batch, entropy: bool = False) -> Score: ...

    def predict(self, batch: Batch) -> Predictions:
        """What the policy says of every decision that could have been made instead."""
        ...

    def split(self, batch: Batch, whole_units: bool) -> list[Tensor]:
        """Row indices of micro-batches that fit in memory, in a fixed order; every row in exactly one."""
        ...


class Models:
    """The networks that a method declared in `needs`, by name, and its own persistent numbers in `state`.

    policy: what is trained.
    reference: the policy as it was before training, frozen.
    anchor: a frozen copy of the policy that only the method moves: in `after_step`, an average or an earlier iterate;
        in `prepare`, the policy that the batch begins with.
    teacher: another policy, frozen, over the same decisions.
    critic: says what a state is worth, trained beside the policy; `critic_target` follows it.
    critic_post: says what a state is worth once an action has done its part and before chance does its own.
    cost_critic: says what a state will cost, beside what it is worth.
    q: says what an action is worth in a state, an ensemble [K, B]; `q_target` follows it.
    policy_target: follows the policy.
    temperature: one trained positive number.
    behaviour: a policy that acts in the policy's place, trained beside it; only a source that acts heeds it.
    schedule: how the sampler of a masked-diffusion model goes about its passes, trained beside it.
    encoder: says what a state, and an action in it, come to as vectors that others take; `encoder_target` follows it.
    vae: says what was done in a state, as `logged` data or a part of it does: a variational autoencoder.
    dynamics: what an ensemble of models, fitted to the dataset and frozen, believes that an action leads to.
    logged: the dataset, which is asked for what it holds near to a state and an action; nothing in it is trained.

    Raises:
        AttributeError: on a network that the method did not declare: nothing is read that is not declared.
    """

    policy: Any
    reference: Any
    anchor: Any
    teacher: Any
    critic: Any
    critic_post: Any
    critic_target: Any
    cost_critic: Any
    q: Any
    q_target: Any
    policy_target: Any
    temperature: Any
    behaviour: Any
    schedule: Any
    encoder: Any
    encoder_target: Any
    vae: Any
    dynamics: Any
    logged: Any

    def __init__(self, state: dict[str, float] | None = None, **networks: Any) -> None:
        self.state: dict[str, float] = dict(state or {})  # checkpointed: adaptive coefficients, duals, averages
        self._networks = networks

    def __getattr__(self, name: str) -> Any:
        networks = self.__dict__.get("_networks", {})
        if name not in networks:
            raise AttributeError(f"network {name!r} is not among the declared ones: {', '.join(networks)}")
        return networks[name]
