"""One description of the block that Llama-like models share, read from a Hugging Face configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

ACTIVATIONS = ("silu", "gelu_pytorch_tanh")
GEMMA: dict[str, Any] = {"norm_offset": 1.0}
FAMILIES: dict[str, dict[str, Any]] = {  # what a family fixes and its configuration does not say
    "llama": {}, "mistral": {}, "granite": {}, "smollm3": {}, "phi3": {"fused": True},
    "qwen2": {"qkv_bias": True}, "qwen3": {"qk_norm": True},
    "gemma": GEMMA, "gemma2": GEMMA | {"post_norm": True}, "gemma3_text": GEMMA | {"post_norm": True, "qk_norm": True},
    "olmo2": {"pre_norm": False, "post_norm": True, "qk_norm": True},
    "olmo3": {"pre_norm": False, "post_norm": True, "qk_norm": True},
}
NAMED_WINDOWS = ("sliding_window", "use_sliding_window", "layer_types")
READS: dict[str, tuple[str, ...]] = {  # settings that only these families read: elsewhere they mean nothing
    "mistral": ("sliding_window",), "phi3": ("sliding_window",),
    "qwen2": NAMED_WINDOWS, "qwen3": NAMED_WINDOWS, "olmo3": NAMED_WINDOWS,
    "gemma2": (*NAMED_WINDOWS, "query_pre_attn_scalar", "hidden_activation"),
    "gemma3_text": (*NAMED_WINDOWS, "query_pre_attn_scalar", "hidden_activation"),
    "smollm3": (*NAMED_WINDOWS, "no_rope_layers"),
    "granite": ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"),
}


class Unsupported(Exception):
    """This architecture is not described here; transformers' own model must run it."""


class Rope(NamedTuple):
    """Rotary positions: how fast each pair of a head's numbers turns, where Llama 3.1 or a linear scale slows some."""

    theta: float  # the base
    factor: float = 1.0  # how much slower pairs turn that are slowed down
    original: int = 0  # Llama 3.1: context before it was stretched; 0: every pair is slowed down
    low: float = 1.0  # pairs that turned this often in it, or less, are slowed down in full
    high: float = 4.0  # pairs that turned this often, or more, are left alone


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
    qk_norm: bool  # RMS norm of queries and keys: of each head (Qwen3, Gemma 3) or of all heads at once (OLMo 2)

    # Where Llama and its like say nothing.
    fused: bool = False  # Phi-3: on disk q, k and v are one weight, gate and up another
    pre_norm: bool = True  # a norm before attention and before the MLP; OLMo 2 has none
    post_norm: bool = False  # a norm after each, before it is added to the stream: Gemma 2 and 3, OLMo 2
    norm_offset: float = 0.0  # Gemma: norms multiply by 1 + w
    activation: str = "silu"  # of the MLP's gate
    embed_scale: float = 1.0  # the embedding times this, rounded as the weights are: Gemma's √d, Granite
    query_scale: float = 1.0  # queries times this, beside D^-½
    residual_scale: float = 1.0  # Granite: what a layer adds to the stream, times this
    logit_scale: float = 1.0  # Granite: logits times this
    rope_stretch: tuple[float, int, float, float] | None = None  # Rope's fields after theta
    unrotated: tuple[int, ...] = ()  # SmolLM3: layers that do not know positions
    local: tuple[int, ...] = ()  # layers that see only the last `window` tokens
    window: int = 0  # W: the token itself and the W − 1 before it
    local_theta: float = 0.0  # Gemma 3: theta in those layers, never stretched; 0: as everywhere

    def rope(self, layer: int) -> Rope | None:
        """How a layer turns queries and keys; None: not at all."""
        if layer in self.unrotated:
            return None
        if layer in self.local and self.local_theta:
            return Rope(self.local_theta)
        return Rope(self.rope_theta, *(self.rope_stretch or ()))

    def reach(self, layer: int) -> int | None:
        """How many tokens a layer sees, its own included; None: all before it."""
        return self.window if layer in self.local and self.window < self.context else None

    @property
    def reaches(self) -> set[int | None]:
        """Every value of `reach`."""
        return {self.reach(i) for i in range(self.layers)}


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """The description of a model from its configuration, as transformers completes it (`AutoConfig`'s `to_dict`).

    Raises:
        Unsupported: with the reason, where the fast path would not be exact.
    """
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise Unsupported(f"model_type {kind!r} is not one of {', '.join(FAMILIES)}")
    for name in ("attention_bias", "mlp_bias", "use_bidirectional_attention", "attn_logit_softcapping",
                 "final_logit_softcapping"):
        if config.get(name):
            raise Unsupported(f"{name} is {config[name]!r}")
    special = {name for names in READS.values() for name in names} - set(READS.get(kind, ()))
    config = {name: value for name, value in config.items() if name not in special}
    activation = config.get("hidden_activation") or config.get("hidden_act", "silu")
    if activation not in ACTIVATIONS:
        raise Unsupported(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
    heads, layers, width = config["num_attention_heads"], config["num_hidden_layers"], config["hidden_size"]
    head_width, context = config.get("head_dim") or width // heads, config.get("max_position_embeddings", 2048)
    local = _local_layers(config)
    rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = _rope(config, rotary.get("full_attention", rotary))
    near = _rope(config, rotary.get("sliding_attention", rotary)) if local else rope
    if near != rope and near != Rope(near.theta):
        raise Unsupported("the rope of layers with a sliding_window is scaled")
    scale = (head_width / (config.get("query_pre_attn_scalar") or head_width)) ** 0.5
    if "attention_multiplier" in config:  # which stands in place of D^-½
        scale = config["attention_multiplier"] * head_width**0.5
    return Architecture(
        width=width, layers=layers, heads=heads, kv_heads=config.get("num_key_value_heads") or heads,
        head_width=head_width, hidden=config["intermediate_size"], vocabulary=config["vocab_size"],
        norm_epsilon=config.get("rms_norm_eps", 1e-6), rope_theta=rope.theta, context=context,
        tied=config.get("tie_word_embeddings", False), activation=activation,
        embed_scale=width**0.5 if kind.startswith("gemma") else config.get("embedding_multiplier", 1.0),
        query_scale=scale, residual_scale=config.get("residual_multiplier", 1.0),
        logit_scale=1 / config.get("logits_scaling", 1.0),
        rope_stretch=rope[1:] if rope != Rope(rope.theta) else None,
        unrotated=tuple(i for i, rotated in enumerate(config.get("no_rope_layers") or ()) if not rotated),
        local=local, window=(config.get("sliding_window") or context) if local else 0,
        local_theta=near.theta if near != rope else 0.0,
        **{"qkv_bias": False, "qk_norm": False} | FAMILIES[kind])


def _local_layers(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The layers with a sliding window: those that layer_types names; all where the family has no such list."""
    windows = config.get("sliding_window") and config.get("use_sliding_window", True)
    kinds = config.get("layer_types")
    if windows and not kinds and "layer_types" in READS[config["model_type"]]:
        raise Unsupported("sliding_window is set but layer_types is not")
    kinds = kinds or ["sliding_attention" if windows else "full_attention"] * config["num_hidden_layers"]
    if unknown := set(kinds) - {"sliding_attention", "full_attention"}:
        raise Unsupported(f"layer_types names {', '.join(map(repr, sorted(unknown)))}")
    return tuple(i for i, name in enumerate(kinds) if name == "sliding_attention")


def _rope(config: Mapping[str, Any], rotary: Mapping[str, Any]) -> Rope:
    """The rotary positions that these parameters describe."""
    part = rotary.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    if part != 1.0:
        raise Unsupported(f"partial_rotary_factor is {part}")
    theta = rotary.get("rope_theta") or config.get("rope_theta", 10000.0)
    match rotary.get("rope_type", rotary.get("type", "default")):
        case "default":
            return Rope(theta)
        case "linear":
            return Rope(theta, rotary["factor"])
        case "llama3":
            original = rotary.get("original_max_position_embeddings") or config["max_position_embeddings"]
            return Rope(theta, rotary["factor"], original, rotary["low_freq_factor"], rotary["high_freq_factor"])
        case kind:
            raise Unsupported(f"rope_type {kind!r} is not one of default, linear, llama3")
