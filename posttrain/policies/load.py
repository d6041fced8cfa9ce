"""From a policy's name to a language model that samples, scores and can be saved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from posttrain.core.errors import UserError
from posttrain.core.placement import HOST, DeviceName, device_of
from posttrain.core.seeds import derive
from posttrain.nets.architecture import Unsupported, read_architecture
from posttrain.nets.precision import compute_type
from posttrain.policies.fast_lm import FastLM, read_transformer
from posttrain.policies.language_policy import Adapters, LanguagePolicy
from posttrain.policies.masked_diffusion_lm import ONE_STEP, Estimate
from posttrain.policies.open_masked import open_masked
from posttrain.policies.prompts import Prompter
from posttrain.policies.transformers_lm import TransformersLM, from_folder, open_transformers
from posttrain.rollout.engine import Engine
from posttrain.rollout.unmasking import ONE_BY_ONE, Unmasking
from posttrain.rollout.vllm_engine import VllmEngine

EngineName = Literal["embedded", "vllm"]


@dataclass(frozen=True)
class LanguageModel:
    """A policy with everything around it."""

    policy: LanguagePolicy
    engine: Engine
    prompter: Prompter
    folder: Path  # where its weights, configuration and tokenizer came from
    stop_tokens: tuple[int, ...]
    notes: tuple[str, ...] = ()  # what the user should know of how it runs, one line each

    @property
    def precision(self) -> str:
        """The type of the compute weights: "fp32" or "bf16"."""
        return {torch.float32: "fp32", torch.bfloat16: "bf16"}[next(self.policy.module.parameters()).dtype]

    @property
    def device(self) -> str:
        """The kind of device that holds them: "cpu" or "cuda"."""
        return next(self.policy.module.parameters()).device.type


def load_language_model(folder: Path, *, max_new_tokens: int, precision: str = "auto", lora: int = 0,
                        seed: int = 0, tokens_per_micro_batch: int = 2048, engine: EngineName = "embedded",
                        estimate: Estimate = ONE_STEP, unmasking: Unmasking = ONE_BY_ONE,
                        device: DeviceName = "auto") -> LanguageModel:
    """A Hugging Face folder as a trainable policy with an engine.

    The fast path runs it where it is exact, transformers' own model where it is not; `notes` then says so.
    One whose config.json has a `mask_token_id` is a masked-diffusion model.
    lora: rank of adapters, with α = 2 · rank; 0: every weight is trained.
    engine: what samples: the policy's own, or vLLM with a copy of its weights.
    estimate, unmasking: how a masked-diffusion model scores and samples.
    device: where weights, optimizer and cache are; a masked-diffusion model is run by the processor.

    Raises:
        UserError: if the folder holds no causal or masked-diffusion language model that can be trained, or the engine
            or the device cannot run it.
    """
    from transformers import AutoConfig, AutoTokenizer

    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if written.get("quantization_config"):
        raise UserError(f"policy = '{folder}': its weights are quantised and cannot be trained; "
                        "name the original model")
    config = from_folder(AutoConfig, folder)  # with transformers' defaults for what config.json leaves out
    tokenizer = from_folder(AutoTokenizer, folder)
    masked = written.get("mask_token_id") is not None
    where = HOST if masked and device == "auto" else device_of(device)
    dtype, adapters, notes = compute_type(precision, where.type), Adapters(lora, derive(seed, "lora")), []
    policy: LanguagePolicy
    if masked:
        if where != HOST:
            raise UserError(f"device = {device!r}: the processor runs masked-diffusion models; allowed: auto, cpu")
        if engine != "embedded":
            raise UserError(f"engine = {engine!r}: a masked-diffusion model samples by unmasking, in 'embedded' alone")
        policy = open_masked(folder, written, config, tokenizer, dtype, adapters, tokens_per_micro_batch, estimate,
                             unmasking)
        return _around(policy, folder, max_new_tokens, written, engine, ())
    try:
        net = read_transformer(folder, read_architecture(config.to_dict()), dtype, where)
        policy = FastLM(net, tokenizer, tokens_per_micro_batch, folder, adapters)
    except Unsupported as reason:
        model = open_transformers(folder, dtype).to(where)
        policy = TransformersLM(model, tokenizer, tokens_per_micro_batch, folder, adapters)
        notes.append(f"{config.model_type}: no fast path ({reason}); transformers' own model runs it, slower")
    return _around(policy, folder, max_new_tokens, written, engine, tuple(notes))


def _around(policy: LanguagePolicy, folder: Path, max_new_tokens: int, written: dict[str, Any], engine: EngineName,
            notes: tuple[str, ...]) -> LanguageModel:
    prompter = Prompter(policy.tokenizer, policy.context - max_new_tokens)
    sampler: Engine = policy.engine(prompter.decode)
    if engine == "vllm":
        assert isinstance(policy, (FastLM, TransformersLM))
        dtype = next(policy.module.parameters()).dtype
        sampler = VllmEngine(folder, policy.weights, prompter.decode, policy.context, dtype)
    return LanguageModel(policy, sampler, prompter, folder, stop_tokens(folder, written, policy.tokenizer), notes)


def stop_tokens(folder: Path, config: dict[str, Any], tokenizer: Any) -> tuple[int, ...]:
    """Every token that ends a turn: the tokenizer's, the configuration's and the generation settings'."""
    found: set[int | None] = set()
    generation = folder / "generation_config.json"
    settings = json.loads(generation.read_text(encoding="utf-8")) if generation.exists() else {}
    for value in (tokenizer.eos_token_id, config.get("eos_token_id"), settings.get("eos_token_id")):
        found |= set(value if isinstance(value, list) else [value])
    return tuple(sorted(token for token in found if token is not None))
