"""A Hugging Face folder with a tiny random Llama that reads and writes bytes: a whole run takes a second or two."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def write_tiny_folder(folder: Path, seed: int = 0, context: int = 128, head: int = 8) -> Path:
    """Byte-level vocabulary of 257 with `<eos>`, width 32, 2 layers, 4 heads of that width."""
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*ALPHABET, "<eos>"])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(folder)
    config = LlamaConfig(vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, head_dim=head, max_position_embeddings=context,
                         tie_word_embeddings=True, eos_token_id=256, bos_token_id=None)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder
