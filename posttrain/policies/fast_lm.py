"""A pretrained model that `Transformer` describes exactly: the fast path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from posttrain.core import Critic, Policy
from posttrain.core.errors import UserError
from posttrain.core.placement import HOST
from posttrain.nets.architecture import Architecture, Unsupported
from posttrain.nets.hf_weights import from_hf
from posttrain.nets.transformer import Transformer
from posttrain.policies.causal_lm import CausalLM
from posttrain.policies.export import named_weights, save_pretrained
from posttrain.policies.language_policy import Adapters, Decode, WithoutAdapters
from posttrain.policies.value_lm import ValueLM
from posttrain.rollout.embedded import EmbeddedEngine


class FastLM(CausalLM):
    """`CausalLM` that knows the folder it came from."""

    def __init__(self, net: Transformer, tokenizer: Any, tokens_per_micro_batch: int, folder: Path,
                 adapters: Adapters) -> None:
        super().__init__(net, tokenizer, tokens_per_micro_batch)
        self.folder, self.context = folder, net.arch.context
        if adapters.rank:
            net.add_lora(adapters.rank, 2.0 * adapters.rank, torch.Generator().manual_seed(adapters.seed))

    def engine(self, decode: Decode) -> EmbeddedEngine:
        return EmbeddedEngine(self.module, decode)

    def initial(self) -> Policy:
        if self.module.lora:
            return WithoutAdapters(self, self.module.without_lora)
        net = self._read(self.module.head.dtype)
        return CausalLM(net.requires_grad_(False), self.tokenizer, self.budget)

    def anchor(self) -> Policy:
        if self.module.lora:
            raise UserError("lora: this method keeps a moving copy of the policy, which adapters cannot hold; "
                            "train without --lora")
        net = self._read(torch.float32)
        return CausalLM(net.requires_grad_(False), self.tokenizer, self.budget)

    def critic(self) -> Critic:
        return ValueLM(self._read(self.module.head.dtype), self.split)

    def _read(self, dtype: torch.dtype) -> Transformer:
        """The policy's body before training, where the policy is."""
        return read_transformer(self.folder, self.module.arch, dtype, self.module.head.device)

    def weights(self) -> dict[str, Tensor]:
        """The present weights under Hugging Face's names, adapters folded in."""
        return named_weights(self.module)

    def save(self, target: Path) -> Path:
        return save_pretrained(self.module, self.folder, target)


def read_transformer(folder: Path, arch: Architecture, dtype: torch.dtype, device: torch.device = HOST) -> Transformer:
    """The weights of a Hugging Face folder in our layout.

    Raises:
        Unsupported: if the weights have other names than this architecture's.
    """
    try:
        return Transformer(arch, from_hf(arch, read_tensors(folder))).to(device, dtype)
    except KeyError as error:
        raise Unsupported(f"no weight named {error} in the folder") from None


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All weights of a Hugging Face folder, from one safetensors file or several."""
    index = folder / "model.safetensors.index.json"
    files = {"model.safetensors"}
    if index.exists():
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    tensors: dict[str, Tensor] = {}
    for name in sorted(files):
        tensors |= load_file(folder / name)
    return tensors
