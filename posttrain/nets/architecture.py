"""One description of the block that Llama-like models share, read from a Hugging Face config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")


class Unsupported(Exception):
    """This architecture is not described here; transformers' own model must run it."""


@dataclass(frozen=True)
class Architecture:
    """Sizes and switches of a decoder-only transformer with rotary positions, RMS norms and a gated MLP."""

    width: int  # d, the residual stream
    layers: int
    heads: int  # H, query heads
    kv_heads: int  # K, key and value heads; H / K queries share one
    head_width: int  # D
    hidden: int  # f, the MLP's
    vocabulary: int  # V
    norm_epsilon: float
    rope_theta: float
    context: int  # longest sequence, tokens
    tied: bool  # the output head is the embedding
    qkv_bias: bool  # Qwen2
    qk_norm: bool  # Qwen3: RMS norm of every query and key head


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """The description of a model from its config.json.

    Raises:
        Unsupported: with the reason, where the fast path would not be exact.
    """
    kind = config.get("model_type")
    if kind not in SUPPORTED:
        raise Unsupported(f"model_type {kind!r} is not one of {', '.join(SUPPORTED)}")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if scaling != "default":
        raise Unsupported(f"rope_type {scaling!r} is scaled")
    window = config.get("sliding_window")
    if window and config.get("use_sliding_window", kind == "mistral") and window < config["max_position_embeddings"]:
        raise Unsupported(f"sliding_window {window} is shorter than the context")
    if config.get("hidden_act", "silu") != "silu" or config.get("mlp_bias") or config.get("attention_bias"):
        raise Unsupported("activation or biases differ from Llama's")
    heads = config["num_attention_heads"]
    return Architecture(
        width=config["hidden_size"], layers=config["num_hidden_layers"], heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_width=config.get("head_dim") or config["hidden_size"] // heads,
        hidden=config["intermediate_size"], vocabulary=config["vocab_size"],
        norm_epsilon=config.get("rms_norm_eps", 1e-6),
        rope_theta=rope.get("rope_theta") or config.get("rope_theta", 10000.0),
        context=config.get("max_position_embeddings", 2048), tied=config.get("tie_word_embeddings", False),
        qkv_bias=kind == "qwen2", qk_norm=kind == "qwen3")
