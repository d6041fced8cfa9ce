"""Random models of a few thousand weights and a word-level tokenizer, saved by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from posttrain.core import Groups
from posttrain.policies.causal_lm import Sequences

WORDS = 37
ENDS = {"vocab_size": WORDS, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
SHAPE = ENDS | {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
                "max_position_embeddings": 64}
GROUPED = SHAPE | {"num_key_value_heads": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": ENDS | {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": SHAPE,
    "gemma3_text": GROUPED | {"head_dim": 8, "sliding_window": 4,
                              "layer_types": ["sliding_attention", "full_attention"]},
    "gemma2": GROUPED | {"head_dim": 8, "sliding_window": 4, "attn_logit_softcapping": 2.0,
                         "final_logit_softcapping": 3.0, "layer_types": ["sliding_attention", "full_attention"]},
    "phi": GROUPED,  # its output layer has a bias
    "bloom": ENDS | {"hidden_size": 16, "n_layer": 2, "n_head": 4},  # distances instead of positions
    "mamba": ENDS | {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},  # a recurrent state, no keys
    "bert": SHAPE,  # sees later tokens
    "llama": GROUPED | {"tie_word_embeddings": True},
    "qwen2": GROUPED,
    "llama3": GROUPED | {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 16}},
    "yarn": GROUPED | {"rope_parameters": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}},
    "phi3": GROUPED | {"sliding_window": 4},
}


def make_tokenizer(template: str = "$A") -> Any:
    """Words w2 … w36 with ids 2 … 36; `template` says what is added around a text, as in "<s> $A </s>"."""
    words = {"<s>": 0, "</s>": 1} | {f"w{i}": i for i in range(2, WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("<s>", 0), ("</s>", 1)]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ends)
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def save_model(folder: Path, name: str) -> Path:
    """A model of this kind with weights large enough that its predictions differ from token to token."""
    config = AutoConfig.for_model("llama" if name in ("llama3", "yarn") else name, **CONFIGS[name])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    torch.nn.init.normal_(weight, std=0.4)
                elif weight.std() == 0:  # biases and norms that nothing would otherwise show to be used
                    weight += 0.2 * torch.randn(weight.shape)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def own_model(folder: Path) -> Any:
    """transformers' model of that folder, dropout off."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    return model.eval()


def batch_of(prompts: list[list[int]], samples: int, tokens: torch.Tensor, lengths: torch.Tensor,
             temperature: float = 1.0, reward: torch.Tensor | None = None) -> Groups:
    """A batch of completions [R, N] with these lengths [R], `samples` rows to each prompt."""
    group = torch.arange(len(prompts)).repeat_interleave(samples)
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]
    payload = Sequences(tuple(map(tuple, prompts)), group, tokens, lengths, temperature)
    reward = torch.zeros(len(group)) if reward is None else reward
    return Groups(payload=payload, mask=mask, unit=group, version=torch.zeros(mask.shape),
                  logp_behaviour=torch.zeros(mask.shape), reward=reward,
                  finished=torch.ones(len(group), dtype=torch.bool), limit=tokens.shape[1])
