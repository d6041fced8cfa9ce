"""Tiny random models of transformers itself, to hold ours against."""

from __future__ import annotations

from typing import Any

import torch

KINDS = ("Llama", "Qwen2", "Qwen3")


def tiny(kind: str, tied: bool, seed: int = 0) -> Any:
    """Three layers, width 64, vocabulary 300; norms and biases are random too, or a fault in them would not show."""
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, max_position_embeddings=128, tie_word_embeddings=tied,
            attn_implementation="eager", bos_token_id=None, eos_token_id=None, pad_token_id=None)
        model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.data.mul_(4)  # far from uniform, so that likeliest tokens are clear
    return model
