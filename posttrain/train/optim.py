"""AdamW on one flat fp32 master copy, whatever the compute weights are (fp64 where they are)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from posttrain.core.step import Rule
from posttrain.nets.kernels import add_to
from posttrain.nets.precision import at_least_fp32, length
from posttrain.train.own_step import Again, OwnStep


class FlatAdamW:
    """Master weights, gradient and both averages as four flat fp32 tensors (Loshchilov & Hutter, 1711.05101).

    fp32 parameters become views of the master; others are refreshed from it after every step, and their gradients
    are summed in fp32 as soon as autograd has them.

    rule: a method's own step, which may move the weights otherwise than by AdamW.
    kept: tensors that such a step keeps.
    """

    rule: Rule | None = None

    def __init__(self, module: nn.Module, betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.0,
                 epsilon: float = 1e-8) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.betas, self.weight_decay, self.epsilon, self.steps = betas, weight_decay, epsilon, 0
        self.kept: dict[str, Tensor] = {}
        self.master = torch.cat([at_least_fp32(p.detach()).reshape(-1) for p in self.parameters])
        self.gradient, self.first, self.second = (torch.zeros_like(self.master) for _ in range(3))
        self.taken = torch.zeros((), device=self.master.device)  # `steps`, as AdamW's kernel is told
        self.rounded: list[tuple[Tensor, Tensor]] = []  # parameters of another precision, each with its master
        sizes = [p.numel() for p in self.parameters]
        for p, master, gradient in zip(self.parameters, self.master.split(sizes), self.gradient.split(sizes),
                                       strict=True):
            p.main_grad = gradient.view(p.shape)  # type: ignore[attr-defined]  # where fused backward passes add
            if p.dtype == self.master.dtype:
                p.data, p.grad = master.view(p.shape), gradient.view(p.shape)
            else:
                self.rounded.append((p, master.view(p.shape)))
                p.register_post_accumulate_grad_hook(_collect)

    @torch.no_grad()
    def step(self, lr: float, max_norm: float, again: Again | None = None) -> float:
        """One update from the summed gradients, which are then zero; returns their norm before clipping.

        A gradient that is not finite changes nothing but the returned norm.
        again: the loss that the gradients are of, for a method's own step.
        """
        norm = length(self.gradient)
        if math.isfinite(norm):
            if self.rule is None or again is None:
                self.adamw(lr, max_norm, norm)
            else:
                self.rule(OwnStep(self, again, lr, max_norm))
        self.gradient.zero_()
        return norm

    def adamw(self, lr: float, max_norm: float, norm: float) -> None:
        """Move along the gradient, whose norm that is."""
        self.steps += 1
        if norm > max_norm:
            self.gradient.mul_(max_norm / norm)
        torch._fused_adamw_(
            [self.master], [self.gradient], [self.first], [self.second], [], [self.taken.fill_(self.steps)],
            lr=lr, beta1=self.betas[0], beta2=self.betas[1], weight_decay=self.weight_decay, eps=self.epsilon,
            amsgrad=False, maximize=False)
        self._refresh()

    def put(self, weights: Tensor) -> None:
        """The network has these weights, [n], from here on."""
        self.master.copy_(weights)
        self._refresh()

    @property
    def rounding(self) -> float:
        """Relative rounding of the weights that the network computes with."""
        return max((torch.finfo(p.dtype).eps for p in self.parameters), default=0.0)

    def _refresh(self) -> None:
        for p, master in self.rounded:
            p.data.copy_(master)
        increment_version(self.parameters)  # what was computed with the weights before is of no use now

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of the optimizer, master weights included."""
        return {"master": self.master, "first": self.first, "second": self.second,
                "steps": torch.tensor(self.steps), **{f"kept/{name}": x for name, x in self.kept.items()}}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Restore `state()`, in place."""
        for name in ("master", "first", "second"):
            getattr(self, name).copy_(state[name])
        self.steps = int(state["steps"])
        self.kept = {name.partition("/")[2]: x.to(self.master.device, copy=True) for name, x in state.items()
                     if name.startswith("kept/")}
        self.gradient.zero_()
        self._refresh()


def _collect(p: Tensor) -> None:
    """Add a low-precision gradient to the fp32 sum and free it."""
    if p.grad is not None:  # None from fused backward passes, which have added to main_grad themselves
        add_to(p.main_grad, p.grad)  # type: ignore[attr-defined]
        p.grad = None


def schedule(kind: str, lr: float, warmup: int, steps: int) -> Callable[[int], float]:
    """The learning rate of each step 0 … steps − 1: a linear rise over `warmup`, then decay to 10% or none."""
    def at(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / warmup
        done = (step - warmup) / max(1, steps - warmup)
        shape = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[kind]
        return lr * max(0.1, shape)

    return at
