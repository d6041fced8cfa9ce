"""LoRA adapters of a `Transformer`, written as the peft library reads them."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from posttrain.nets.hf_weights import names
from posttrain.nets.transformer import Transformer

PREFIX = "base_model.model."  # peft's, before the base model's own names


def write_adapter(net: Transformer, base: Path, folder: Path) -> None:
    """folder/adapter_config.json and adapter_model.safetensors, for the model in `base`."""
    tensors = peft_tensors(net)
    rank = next(len(tensor) for name, tensor in tensors.items() if name.endswith("lora_A.weight"))
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base),
        "inference_mode": True, "r": rank, "lora_alpha": net.lora_scale * rank, "lora_dropout": 0.0, "bias": "none",
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
    }
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def peft_tensors(net: Transformer) -> dict[str, Tensor]:
    """A [rank, in] and B [out, rank] of every adapted projection under peft's names, …q_proj.lora_A.weight."""
    tensors: dict[str, Tensor] = {}
    for ours, theirs in names(net.arch).items():
        for (a, b), name in zip(net.adapter(ours), theirs, strict=False):  # no pairs: nothing adapted
            module = PREFIX + name.removesuffix(".weight")
            tensors[f"{module}.lora_A.weight"] = a.detach().contiguous()
            tensors[f"{module}.lora_B.weight"] = b.detach().contiguous()
    return tensors
