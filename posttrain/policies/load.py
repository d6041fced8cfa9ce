"""From a policy's name to a language model that samples, scores and can be saved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from posttrain.core import Batch, Policy
from posttrain.core.seeds import derive
from posttrain.nets.architecture import read_architecture
from posttrain.nets.hf_weights import from_hf
from posttrain.nets.precision import compute_type
from posttrain.nets.transformer import Transformer
from posttrain.policies.causal_lm import CausalLM
from posttrain.policies.prompts import Prompter
from posttrain.rollout.embedded import EmbeddedEngine
from posttrain.rollout.engine import Engine


@dataclass(frozen=True)
class LanguageModel:
    """A policy with everything around it."""

    policy: CausalLM
    engine: Engine
    prompter: Prompter
    folder: Path  # where its weights, configuration and tokenizer came from
    stop_tokens: tuple[int, ...]

    @property
    def precision(self) -> str:
        return {torch.float32: "fp32", torch.bfloat16: "bf16"}[self.policy.module.head.dtype]


def load_language_model(folder: Path, *, max_new_tokens: int, precision: str = "auto", lora: int = 0, seed: int = 0,
                        tokens_per_micro_batch: int = 2048) -> LanguageModel:
    """A Hugging Face folder as a trainable policy with the embedded engine."""
    from transformers import AutoTokenizer

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    arch = read_architecture(config)
    net = Transformer(arch, from_hf(arch, read_tensors(folder))).to(compute_type(precision))
    if lora:
        net.add_lora(lora, alpha=2.0 * lora, generator=torch.Generator().manual_seed(derive(seed, "lora")))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    prompter = Prompter(tokenizer, arch.context - max_new_tokens)
    policy = CausalLM(net, tokenizer, tokens_per_micro_batch)
    return LanguageModel(policy, EmbeddedEngine(net, prompter.decode), prompter, folder,
                         stop_tokens(folder, config, tokenizer))


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


def stop_tokens(folder: Path, config: dict[str, Any], tokenizer: Any) -> tuple[int, ...]:
    """Every token that ends a turn: the tokenizer's, the configuration's and the generation settings'."""
    found: set[int] = set()
    generation = folder / "generation_config.json"
    settings = json.loads(generation.read_text(encoding="utf-8")) if generation.exists() else {}
    for value in (tokenizer.eos_token_id, config.get("eos_token_id"), settings.get("eos_token_id")):
        found |= set(value) if isinstance(value, list) else {value} - {None}
    return tuple(sorted(found))


class WithoutAdapters:
    """The reference of a LoRA run: the same weights, adapters off, no second copy."""

    decision = "token"

    def __init__(self, policy: CausalLM) -> None:
        self.policy, self.module = policy, policy.module

    def log_prob(self, batch: Batch) -> Tensor:
        with torch.no_grad(), self.module.without_lora():
            return self.policy.log_prob(batch)


def initial_policy(model: LanguageModel) -> Policy | WithoutAdapters:
    """The policy as it was before training, frozen."""
    if model.policy.module.lora:
        return WithoutAdapters(model.policy)
    arch = model.policy.module.arch
    net = Transformer(arch, from_hf(arch, read_tensors(model.folder))).to(model.policy.module.head.dtype)
    net.requires_grad_(False)
    return CausalLM(net, model.policy.tokenizer, model.policy.budget)
