"""Tiny random models of transformers itself, to hold ours against."""

from __future__ import annotations

from typing import Any

import torch

WINDOWS = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
UNCAPPED = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
LLAMA_31 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
NEAR = {"rope_type": "default", "rope_theta": 100.0}
KINDS: dict[str, dict[str, Any]] = {  # everything that the fast path describes, with what is its own
    "Llama": {"model_type": "llama", "head_dim": 16},
    "Llama 3.1": {"model_type": "llama", "head_dim": 16, "rope_parameters": LLAMA_31},
    "Llama, linear": {"model_type": "llama", "head_dim": 16, "rope_parameters": LINEAR},
    "Mistral": {"model_type": "mistral", "head_dim": 24, "sliding_window": 4},
    "Qwen2": {"model_type": "qwen2"},
    "Qwen2, windows": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "Qwen3": {"model_type": "qwen3", "head_dim": 16},
    "Gemma": {"model_type": "gemma", "head_dim": 24},
    "Gemma 2": {"model_type": "gemma2", "head_dim": 24, "query_pre_attn_scalar": 40} | WINDOWS | UNCAPPED,
    "Gemma 3": {"model_type": "gemma3_text", "head_dim": 24, "query_pre_attn_scalar": 40,
                "rope_parameters": {"sliding_attention": NEAR, "full_attention": LINEAR}} | WINDOWS,
    "Phi-3": {"model_type": "phi3", "sliding_window": 4},
    "OLMo 2": {"model_type": "olmo2"},
    "OLMo 3": {"model_type": "olmo3"} | WINDOWS,
    "SmolLM3": {"model_type": "smollm3", "no_rope_layers": [1, 0, 1]},
    "Granite": {"model_type": "granite", "embedding_multiplier": 6.0, "attention_multiplier": 0.1,
                "residual_multiplier": 0.7, "logits_scaling": 3.0},
}


def tiny(kind: str, tied: bool, seed: int = 0) -> Any:
    """Three layers, width 64, vocabulary 300; norms and biases are random too, or a fault in them would not show."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=tied, attn_implementation="eager",
        bos_token_id=None, eos_token_id=None, pad_token_id=None, **KINDS[kind])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(config).eval()  # type: ignore[no-untyped-call]
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.data.mul_(6 if tied else 4)  # far from uniform, so that likeliest tokens are clear
        if tied:  # or the last token would be the likeliest next one for ever
            model.get_input_embeddings().weight.data.div_(5)
    return model
