"""A real GGUF file small enough to write in a test: a Llama of one layer with a byte-level tokenizer.

Its numbers are chosen so that packing loses nothing, and the expected tensors are known by hand:

- Q8_0 packs 32 values as round(x / d) with d = max|x| / 127; whole numbers of which one is 127 give d = 1;
- Q4_1 packs 32 values as round((x - min) / d) with d = (max - min) / 15; those from -2 to 13 give d = 1.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

HIDDEN, HEADS, KV_HEADS, HEAD_SIZE, INNER = 64, 2, 1, 32, 64
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Array = NDArray[np.float32]


def vocabulary() -> list[str]:
    """3 special tokens, the 256 bytes in GPT-2's spelling, and one merge: two spaces (id 259)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [byte for byte in range(256) if byte not in plain]
    spelling = {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(other)}
    return [*SPECIAL, *(spelling[byte] for byte in range(256)), "ĠĠ"]


def whole_numbers(rows: int, columns: int, low: int, high: int, seed: int) -> Array:
    """Whole numbers in [low, high]; every block of 32 holds both ends."""
    values = np.random.default_rng(seed).integers(low, high + 1, (rows, columns)).astype(np.float32)
    values[:, 0::32], values[:, 1::32] = low, high
    return values


def weights() -> dict[str, Array]:
    """The tensors by their Hugging Face names, as they should come out of the conversion."""
    size = len(vocabulary())
    small = np.float32(2.0**-7)  # a power of two scales exactly and keeps the logits moderate
    layer = "model.layers.0."
    return {
        "model.embed_tokens.weight": whole_numbers(size, HIDDEN, -127, 127, 0) * small,
        layer + "self_attn.q_proj.weight": whole_numbers(HEADS * HEAD_SIZE, HIDDEN, -2, 13, 1) * small,
        layer + "self_attn.k_proj.weight": whole_numbers(KV_HEADS * HEAD_SIZE, HIDDEN, -2, 13, 2) * small,
        layer + "self_attn.v_proj.weight": whole_numbers(KV_HEADS * HEAD_SIZE, HIDDEN, -2, 13, 3) * small,
        layer + "self_attn.o_proj.weight": whole_numbers(HIDDEN, HEADS * HEAD_SIZE, -2, 13, 4) * small,
        layer + "mlp.gate_proj.weight": whole_numbers(INNER, HIDDEN, -2, 13, 5) * small,
        layer + "mlp.up_proj.weight": whole_numbers(INNER, HIDDEN, -2, 13, 6) * small,
        layer + "mlp.down_proj.weight": whole_numbers(HIDDEN, INNER, -127, 127, 7) * small,
        layer + "input_layernorm.weight": np.linspace(0.5, 1.5, HIDDEN, dtype=np.float32),
        layer + "post_attention_layernorm.weight": np.linspace(1.5, 0.5, HIDDEN, dtype=np.float32),
        "model.norm.weight": np.linspace(0.9, 1.1, HIDDEN, dtype=np.float32),
    }


def interleaved(weight: Array, heads: int) -> Array:
    """llama.cpp's order of query and key rows, rotary pairs together: in each head 0, n/2, 1, n/2 + 1, ..."""
    half = weight.shape[0] // heads // 2
    pairs = [row + side * half for row in range(half) for side in (0, 1)]
    return np.concatenate([weight[head * 2 * half :][pairs] for head in range(heads)])


def write(path: Path, pre: str = "smollm", without: str = "") -> Path:
    """Write the model to `path` in GGUF, leaving out the packed tensor `without`.

    `pre` names the rule by which text is cut before the merges.
    """
    writer = gguf.GGUFWriter(path, "llama")
    _write_shape(writer)
    _write_tokenizer(writer, pre)
    q8, q4 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_1
    w, layer = weights(), "model.layers.0."
    packed = {
        "token_embd": (w["model.embed_tokens.weight"], q8),
        "blk.0.attn_q": (interleaved(w[layer + "self_attn.q_proj.weight"], HEADS), q4),
        "blk.0.attn_k": (interleaved(w[layer + "self_attn.k_proj.weight"], KV_HEADS), q4),
        "blk.0.attn_v": (w[layer + "self_attn.v_proj.weight"], q4),
        "blk.0.attn_output": (w[layer + "self_attn.o_proj.weight"], q4),
        "blk.0.ffn_gate": (w[layer + "mlp.gate_proj.weight"], q4),
        "blk.0.ffn_up": (w[layer + "mlp.up_proj.weight"], q4),
        "blk.0.ffn_down": (w[layer + "mlp.down_proj.weight"], q8),
    }
    packed.pop(without, None)
    for name, (values, kind) in packed.items():
        writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
    writer.add_tensor("blk.0.attn_norm.weight", w[layer + "input_layernorm.weight"])
    writer.add_tensor("blk.0.ffn_norm.weight", w[layer + "post_attention_layernorm.weight"])
    writer.add_tensor("output_norm.weight", w["model.norm.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_shape(writer: gguf.GGUFWriter) -> None:
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_SIZE)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary()))


def _write_tokenizer(writer: gguf.GGUFWriter, pre: str) -> None:
    tokens = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens]
    writer.add_token_types(kinds)
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT)
