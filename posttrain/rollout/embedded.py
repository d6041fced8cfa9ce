"""The embedded engine: no server, the policy's own weights, prompts computed once, rows that join and leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from posttrain.core.errors import UserError
from posttrain.nets.transformer import Transformer
from posttrain.rollout.cache import Shape, default_bytes
from posttrain.rollout.engine import Completions, Sampling
from posttrain.rollout.sampler import drawn_bytes
from posttrain.rollout.schedule import Schedule


class PackedLinear:
    """Weights laid out for small products (oneDNN), made once per update; plain ones where that is not to be had."""

    def __init__(self, net: Transformer) -> None:
        self.net = net
        weights = {name: net.merged(name) for name, w in net.named_weights() if w.dim() == 2}
        reorder = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
        self.packed = None
        if reorder is not None and _packs(net.head):
            self.packed = {name: reorder(w.detach(), 64) for name, w in weights.items()}
        self.plain = weights

    def __call__(self, x: Tensor, name: str) -> Tensor:
        bias = self.net.weight(f"{name}_bias") if self.net.has(f"{name}_bias") else None
        x = x.to(self.plain[name].dtype)
        if self.packed is None:
            return F.linear(x, self.plain[name], bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed[name], bias, "none", [], "")
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        return self(hidden, "embed" if self.net.arch.tied else "head").float()


def _packs(weight: Tensor) -> bool:
    """Whether oneDNN multiplies by weights of this type on this machine."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    bf16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(bf16) or weight.dtype == torch.float32


class EmbeddedEngine:
    """Generates with a `Transformer` in this process."""

    def __init__(self, net: Transformer, decode: Callable[[list[int]], str]) -> None:
        self.net, self.decode, self.cache_bytes = net, decode, default_bytes()
        self.update()

    def update(self) -> None:
        with torch.no_grad():
            self.linear = PackedLinear(self.net)

    def keep_to(self, cache_bytes: int) -> None:
        self.cache_bytes = cache_bytes

    def rows_at_once(self, prompts: int, samples: int, prompt_tokens: int, sampling: Sampling) -> int:
        arch = self.net.arch
        shape = Shape(arch, self.net.head.dtype, 0, prompt_tokens, sampling.max_new_tokens,
                      drawn_bytes(sampling, arch.vocabulary))
        return shape.room(self.cache_bytes, prompts, samples).rows

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling,
                 generator: torch.Generator) -> Completions:
        arch, limit = self.net.arch, sampling.max_new_tokens
        longest = max(map(len, prompts))
        if longest + limit > arch.context:
            raise UserError(f"max_new_tokens = {limit}: the longest prompt has {longest} tokens and the context "
                            f"{arch.context}; at most {arch.context - longest} new tokens fit")
        uniform = torch.rand(len(prompts) * samples, limit, generator=generator)
        return Schedule(self.net, self.linear, self.linear.logits, self.decode, prompts, samples, sampling, uniform,
                        self.cache_bytes).run()
