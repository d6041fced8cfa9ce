"""Turn the ONNX file of the terrain model into a policy's folder: its weights by the names of `posttrain.nets.unet`.

An exporter keeps the names of convolutions and linear maps, `network.input_blocks.1.0.in_layers.2.weight`, and drops
those of the norms, whose scale and shift become constants of a product and a sum.  A norm is the one before the first
convolution that comes after it, which names it again.

This file imports nothing else of the package, so that it also runs alone, as a process of its own:

    python -P onnx_folder.py MODEL.onnx FOLDER float32
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PREFIX = "network."
NAMES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (  # theirs, ours
    (r"^time_embed\.", "when."), (r"^label_emb\.", "what."),
    (r"^input_blocks\.0\.0\.", "into."), (r"^input_blocks\.(\d+)", lambda at: f"down.{int(at[1]) - 1}"),
    (r"^middle_block\.", "middle."), (r"^output_blocks\.", "up."), (r"^out\.", "last."),
    (r"in_layers\.0", "before"), (r"in_layers\.2", "first"), (r"emb_layers\.1", "tell"), (r"out_layers\.0", "between"),
    (r"out_layers\.3", "second"), (r"skip_connection", "skip"), (r"proj_out", "out"))
BEFORE = {"in_layers.2": "in_layers.0", "out_layers.3": "out_layers.0", "qkv": "norm", "out.2": "out.0"}  # its norm
POLICY = {  # what `posttrain.policies.terrain` reads beside the weights; of the difficulties 1 to 100 a label each
    "kind": "terrain", "side": 128, "difficulties": [20, 40, 60, 80, 100],
    "unet": {"width": 32, "levels": [1, 1, 2, 3, 4], "blocks": 4, "attention": [2, 3, 4], "head": 32},
    "steps": 2, "spread": 1.0}


def convert(onnx: Path, folder: Path, dtype: str) -> None:
    """Write the model in `onnx` to `folder` (made if absent), weights in `dtype`.

    Raises:
        ModuleNotFoundError, ValueError: as `read`.
    """
    import torch
    from safetensors.torch import save_file

    kind = getattr(torch, dtype)
    weights = {ours(name): torch.from_numpy(x.copy()).to(kind) for name, x in read(onnx).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "weights.safetensors")
    (folder / "policy.json").write_text(json.dumps(POLICY, indent=1) + "\n", encoding="utf-8")


def read(file: Path) -> dict[str, Any]:
    """Every weight by the name that the model's makers gave it, as an array.

    Raises:
        ModuleNotFoundError: where onnx is not installed.
        ValueError: a file that is not such a model.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise ModuleNotFoundError("onnx, which reads it, is not installed; pip install 'posttrain[images]'") from None

    try:
        graph = onnx.load(str(file), load_external_data=False).graph
    except DecodeError as error:
        raise ValueError(f"{file.name}: not an ONNX file ({error})") from None
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = {name.removeprefix(PREFIX): x for name, x in arrays.items() if name.startswith(PREFIX)}
    waiting: dict[str, Any] = {}  # of a norm whose convolution has not come yet
    for node in graph.node:
        constants = [arrays[name] for name in node.input if name in arrays]
        if node.op_type in ("Mul", "Add") and constants and constants[0].shape[1:] == (1, 1):
            waiting["weight" if node.op_type == "Mul" else "bias"] = constants[0][:, 0, 0]
        if node.op_type == "Conv" and waiting:
            owner, _, _ = node.input[1].removeprefix(PREFIX).rpartition(".")
            end = next((end for end in BEFORE if owner.endswith(end)), None)
            if end is None or len(waiting) < 2:
                raise ValueError(f"{file.name}: a norm before {owner}, which has none")
            found |= {f"{owner.removesuffix(end)}{BEFORE[end]}.{part}": x for part, x in waiting.items()}
            waiting = {}
    if not found:
        raise ValueError(f"{file.name}: no weight has a name that begins with {PREFIX}")
    return found


def ours(name: str) -> str:
    """The name of a weight in `posttrain.nets.unet`."""
    for theirs, word in NAMES:
        name = re.sub(theirs, word, name)
    return "net.unet." + name


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
