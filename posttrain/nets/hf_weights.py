"""Hugging Face's names for the weights, and ours: the only place that knows both."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from posttrain.nets.architecture import Architecture

PARTS = {  # ours -> Hugging Face's, concatenated along the output
    "norm": ("input_layernorm.weight",),
    "qkv": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "qkv_bias": ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
    "q_norm": ("self_attn.q_norm.weight",),
    "k_norm": ("self_attn.k_norm.weight",),
    "o": ("self_attn.o_proj.weight",),
    "o_norm": ("post_attention_layernorm.weight",),
    "mlp_norm": ("pre_feedforward_layernorm.weight",),
    "gate_up": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "down": ("mlp.down_proj.weight",),
    "down_norm": ("post_feedforward_layernorm.weight",),
}
FUSED = {"qkv": ("self_attn.qkv_proj.weight",), "gate_up": ("mlp.gate_up_proj.weight",)}
PRE_NORM_ALONE = {"mlp_norm": ("post_attention_layernorm.weight",)}  # a name that means the other norm elsewhere


def block(arch: Architecture) -> dict[str, tuple[str, ...]]:
    """The weights of one block: our name -> Hugging Face's names, in a fixed order."""
    present = {"norm": arch.pre_norm, "mlp_norm": arch.pre_norm, "o_norm": arch.post_norm, "down_norm": arch.post_norm,
               "qkv_bias": arch.qkv_bias, "q_norm": arch.qk_norm, "k_norm": arch.qk_norm}
    theirs = PARTS | (FUSED if arch.fused else {}) | ({} if arch.post_norm else PRE_NORM_ALONE)
    return {part: theirs[part] for part in PARTS if present.get(part, True)}


def names(arch: Architecture) -> dict[str, tuple[str, ...]]:
    """Every weight of this architecture: our name -> Hugging Face's names, in a fixed order."""
    table: dict[str, tuple[str, ...]] = {"embed": ("model.embed_tokens.weight",)}
    for i in range(arch.layers):
        table |= {f"{i}.{part}": tuple(f"model.layers.{i}.{name}" for name in theirs)
                  for part, theirs in block(arch).items()}
    table["norm"] = ("model.norm.weight",)
    return table if arch.tied else table | {"head": ("lm_head.weight",)}


def from_hf(arch: Architecture, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fuse a Hugging Face state dict into ours, fp32."""
    return {ours: torch.cat([tensors[name].float() for name in theirs]) for ours, theirs in names(arch).items()}


def part_sizes(arch: Architecture, name: str) -> list[int]:
    """Output sizes of the Hugging Face weights that are fused in ours."""
    q, k = arch.heads * arch.head_width, arch.kv_heads * arch.head_width
    sizes = {"qkv": [q, k, k], "qkv_bias": [q, k, k], "gate_up": [arch.hidden, arch.hidden], "down": [arch.width],
             "o": [arch.width]}[name.split(".")[-1]]
    return [sum(sizes)] if arch.fused else sizes


def to_hf(arch: Architecture, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split ours into a Hugging Face state dict, the types as they are."""
    out: dict[str, Tensor] = {}
    for ours, theirs in names(arch).items():
        parts = weights[ours].split(part_sizes(arch, ours)) if len(theirs) > 1 else [weights[ours]]
        out |= {name: part.contiguous() for name, part in zip(theirs, parts, strict=True)}
    return out
