"""What the embedded engine computes with: weights laid out for small products, the rest of a layer compiled."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from posttrain.nets.kernels import FEW, Stored, kernels_for
from posttrain.nets.precision import at_least_fp32
from posttrain.nets.products import products_for
from posttrain.nets.transformer import Transformer
from posttrain.rollout.layers import Layers


class Packed:
    """An `Arithmetic` without gradients, made once per update.

    On processors weights are laid out for `products` where those compile, else for oneDNN where it is to be had, and
    the rest of a layer runs in `kernels` where they compile; everything else is torch's, and the net's own.
    """

    def __init__(self, net: Transformer, packs: bool = True) -> None:
        self.net, self.arch = net, net.arch
        self.plain = {name: net.merged(name) for name, w in net.named_weights() if w.dim() == 2}
        reorder = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
        self.packed, self.products = None, products_for(*self.plain.values()) if packs else None
        if self.products is not None:
            self.packed = {name: self.products.lay_out(w.detach()) for name, w in self.plain.items()}
        elif packs and reorder is not None and _packs(net.head):
            self.packed = {name: reorder(w.detach(), 64) for name, w in self.plain.items()}
        self.kernels = kernels_for(net.arch, net.head.dtype, net.head.device) if packs else None
        self.few = False  # never more than FEW rows are sampled together: oneDNN's products sum in another order
        # in fp32, as they multiply
        self.scales = {name: at_least_fp32(w.detach()) + net.arch.norm_offset for name, w in net.named_weights()
                       if name.endswith("norm")} if self.kernels else {}
        self.layers = None  # all of them at once
        if self.kernels is not None and self.products is not None and self.packed is not None:
            self.layers = Layers(net, self.kernels, self.products, self.packed, self.scales)

    def follow(self) -> None:
        """Take over the net's present weights, each in the place where it is; for plain ones."""
        for name, weight in self.plain.items():
            if weight is not self.net.weight(name):
                weight.copy_(self.net.merged(name))

    def linear(self, x: Tensor, name: str) -> Tensor:
        bias = self.net.weight(f"{name}_bias") if self.net.has(f"{name}_bias") else None
        x = x.to(self.plain[name].dtype)
        if self.packed is not None and self.products is not None:
            return self.products.linear(x, self.packed[name], len(self.plain[name]), bias)
        if self.kernels and self.few and len(x) <= FEW:
            return self.kernels.product(x, self.plain[name], bias)
        if self.packed is None:
            return F.linear(x, self.plain[name], bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed[name], bias, "none", [], "")
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        return self.linear(hidden, "embed" if self.arch.tied else "head")

    def norm(self, x: Tensor, name: str) -> Tensor:
        if not self.kernels:
            return self.net.norm(x, name)
        return self.kernels.norm(x, self.scales.get(name), self.arch.norm_epsilon, self.net.head.dtype)

    def gate(self, x: Tensor) -> Tensor:
        return self.kernels.gate(x) if self.kernels else self.net.gate(x)

    def add(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        if not self.kernels:
            return self.net.add(x, y, name)
        return self.kernels.add(x, y, self.scales.get(name), self.arch.norm_epsilon, self.arch.residual_scale)

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return self.kernels.turn(x, cos, sin) if self.kernels else self.net.turn(x, cos, sin)

    def attend(self, i: int, qkv: Tensor, turn: tuple[Tensor, Tensor] | None, root: Stored, prompts: Stored,
               place: Tensor, own: Stored, start: Tensor, drawn: Tensor) -> Tensor:
        """What `Kernels.attend` does in layer i; only with kernels."""
        assert self.kernels is not None
        arch, norms = self.arch, (self.scales.get(f"{i}.q_norm"), self.scales.get(f"{i}.k_norm"))
        return self.kernels.attend(qkv, norms, arch.norm_epsilon, turn, arch.query_scale * arch.head_width**-0.5, root,
                                   prompts, place, own, start, drawn, arch.reach(i) or 0)


def _packs(weight: Tensor) -> bool:
    """Whether oneDNN multiplies by weights of this type on this machine."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    bf16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(bf16) or weight.dtype == torch.float32
