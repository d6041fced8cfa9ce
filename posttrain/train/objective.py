"""Say what will be optimised, before it is."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import textwrap
from typing import Any

from posttrain.core import Method
from posttrain.core.source import show
from posttrain.policies.load import LanguageModel
from posttrain.train.config import Config


def describe(method: Method[Any], config: Config, model: LanguageModel) -> list[tuple[str, str]]:
    """(label, text) pairs: the equation, its denominators and units, the batch, the optimizer, the numbers."""
    rows = config.prompts * config.samples
    updates = method.epochs * method.minibatches
    net = model.policy.module
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    values = ", ".join(f"{f.name} = {show(getattr(method, f.name))}" for f in dataclasses.fields(method))
    decay = "" if config.lr_schedule == "constant" else f" to {config.lr / 10:g} over {config.steps} steps"
    return [
        ("objective", equation(method)),
        ("with", values),
        ("batch", f"{config.prompts} prompts × {config.samples} samples = {rows} completions of at most "
                  f"{config.max_new_tokens} tokens a step; {updates} update{'s' * (updates > 1)} from each batch, so "
                  f"every mean over completions divides by {rows // method.minibatches}"),
        ("clip unit", f"one {model.policy.decision}; log-probabilities at temperature {config.temperature:g}"),
        ("optimizer", f"AdamW, lr {config.lr:g} {config.lr_schedule}{decay}, "
                      f"global gradient norm ≤ {config.max_grad_norm:g}"),
        ("policy", f"{config.policy}: {trained / 1e6:.1f}M trained weights"
                   f"{f' (LoRA rank {config.lora})' if config.lora else ''}, {model.precision} compute, fp32 master"),
    ]


def equation(method: Method[Any]) -> str:
    """The indented block of the method file's docstring."""
    text = inspect.getdoc(sys.modules[type(method).__module__]) or ""
    blocks = [block for block in text.split("\n\n") if block.startswith(("    ", "\t"))]
    return textwrap.dedent(blocks[0]) if blocks else text.partition("\n")[0]
