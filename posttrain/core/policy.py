"""What a method may ask of the networks: a policy scores its decisions, the rest are named in `Models`."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from posttrain.core.batch import Batch


class Score(NamedTuple):
    """What a policy says of the decisions in a batch, with gradient."""

    log_prob: Tensor  # [B, T]; 0 where masked
    entropy: Tensor | None = None  # [B, T] nats, only where asked for


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

    def split(self, batch: Batch, whole_units: bool) -> list[Tensor]:
        """Row indices of micro-batches that fit in memory, in a fixed order; every row in exactly one."""
        ...


class Models:
    """The networks that a method declared in `needs`, by name, and its own persistent numbers in `state`.

    Raises:
        AttributeError: on a network that the method did not declare: nothing is read that is not declared.
    """

    policy: Any
    reference: Any

    def __init__(self, state: dict[str, float] | None = None, **networks: Any) -> None:
        self.state: dict[str, float] = dict(state or {})  # checkpointed: adaptive coefficients, duals, averages
        self._networks = networks

    def __getattr__(self, name: str) -> Any:
        networks = self.__dict__.get("_networks", {})
        if name not in networks:
            raise AttributeError(f"network {name!r} is not among the declared ones: {', '.join(networks)}")
        return networks[name]
