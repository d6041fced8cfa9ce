"""Turn a GGUF file into a folder in the Hugging Face layout, with the weights as floats.

GGUF packs weights in blocks of 4 to 8 bits for inference; training needs plain tensors.  The folder holds
config.json, generation_config.json, model.safetensors (or shards and an index), tokenizer.json and
tokenizer_config.json with the chat template, and loads with plain `from_pretrained(folder)`.

transformers reads the file; three things that its reader leaves out are mended here:

- the pre-tokenizer of SmolLM2 (every digit alone) and the normaliser of Qwen2 (NFC), without which some
  texts get other token ids than the model was trained on;
- floats that GGUF holds in single precision are written as the decimal that was meant (1e-05, not
  9.999999747378752e-06);
- traces of the file (its name, its quantisation) that would make `from_pretrained` look for it again.

This file imports nothing else of the package, so that it also runs alone, as a process of its own:

    python -P gguf_folder.py MODEL.gguf FOLDER float32
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TokenizersBackend


def convert(gguf: Path, folder: Path, dtype: str) -> None:
    """Write the model in `gguf` to `folder` (made if absent), weights in `dtype`.

    float32 keeps every dequantised value as it is; bfloat16 halves the size and rounds each value by at
    most one part in 256.

    Raises:
        ValueError: an architecture or tokenizer that transformers cannot read, a missing tensor, or
            weights left packed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(gguf)
    model = _model(gguf, dtype)
    model.save_pretrained(folder, max_shard_size="5GB")
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    _tidy_config(folder / "config.json")
    _tidy_tokenizer_config(folder / "tokenizer_config.json")


def _model(gguf: Path, dtype: str) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    wanted = getattr(torch, dtype)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=wanted,
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
    )
    model, found = cast("tuple[PreTrainedModel, dict[str, set[str]]]", loaded)
    absent = sorted({*found["missing_keys"], *found["mismatched_keys"]})
    if absent:  # transformers would go on with random numbers
        raise ValueError(f"{gguf.name}: no usable tensor for {', '.join(map(str, absent))}")
    odd = sorted({str(p.dtype) for p in model.parameters() if p.dtype != wanted})
    if odd:
        raise ValueError(f"{gguf.name}: some weights were loaded as {', '.join(odd)} instead of {dtype}")
    return model


def _tokenizer(gguf: Path) -> TokenizersBackend:
    from gguf import GGUFReader
    from tokenizers import normalizers, pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = cast("TokenizersBackend", AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name))
    kind = GGUFReader(gguf).fields.get("tokenizer.ggml.pre")
    backend = tokenizer.backend_tokenizer
    match kind.contents() if kind else None:
        case "smollm":
            backend.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Digits(individual_digits=True),
                    pre_tokenizers.ByteLevel(add_prefix_space=False),
                ]
            )
        case "qwen2":
            backend.normalizer = normalizers.NFC()
    return tokenizer


def _tidy_config(path: Path) -> None:
    config = json.loads(path.read_text())
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path", "unk_token_id"):
        config.pop(key, None)
    path.write_text(json.dumps(_as_meant(config), indent=2, sort_keys=True) + "\n")


def _tidy_tokenizer_config(path: Path) -> None:
    config = json.loads(path.read_text())
    for key in ("backend", "is_local", "local_files_only", "name_or_path"):
        config.pop(key, None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that older readers know as well
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _as_meant(value: Any) -> Any:
    """`value` with every float replaced by the shortest decimal that is the same single-precision number."""
    import numpy as np

    if isinstance(value, float):
        return float(str(np.float32(value)))
    if isinstance(value, dict):
        return {key: _as_meant(item) for key, item in value.items()}
    return [_as_meant(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
