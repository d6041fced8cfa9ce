"""What a run learns from: fresh samples, given answers, or both, as its method, its options and its task allow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from posttrain.core.errors import UserError
from posttrain.tasks.task import Task, can_score
from posttrain.train.config import LanguageConfig

Kind = Literal["samples", "given", "both"]

ALLOWED: dict[str, tuple[Kind, ...]] = {  # by the method's `learns_from`; the first is taken unless told otherwise
    "samples": ("samples",),
    "preferences": ("given", "samples", "both"),
    "demonstrations": ("given",),
    "both": ("both",),
}
MATERIAL = {"samples": "fresh samples", "preferences": "preferences", "demonstrations": "demonstrations",
            "both": "given answers beside fresh samples"}


def source_kind(learns_from: str, method: str, config: LanguageConfig, task: Task) -> Kind:
    """What the steps of this run will hold.

    Raises:
        UserError: where the method cannot learn from that, or the task does not have it.
    """
    allowed, first = ALLOWED[learns_from], task.train(0, config.seed)
    if config.source == "auto":
        kind: Kind = "samples" if learns_from == "preferences" and not first.completions else allowed[0]
        told = f"task = {task.name!r}: {method} learns from {MATERIAL[learns_from]}, and"
    elif config.source not in allowed:
        raise UserError(f"source = {config.source!r}: {method} learns from {MATERIAL[learns_from]}; "
                        f"allowed: auto, {', '.join(allowed)}")
    else:
        kind, told = config.source, f"source = {config.source!r}: with task {task.name!r}"
    if kind != "given" and not can_score(task):
        raise UserError(f"{told} nothing scores samples; give --verifier")
    if kind != "samples" and not first.completions and (first.answer is None or learns_from == "preferences"):
        raise UserError(f"{told} the task brings no answers to learn from")
    if kind != "samples" and config.dynamic_sampling > 1:
        raise UserError(f"dynamic_sampling = {config.dynamic_sampling}: replaces groups of samples alone, and {method} "
                        "learns from given answers here")
    return kind


UNUSED_WITHOUT_SAMPLES = ("samples", "top_p", "top_k", "min_p", "bad_words", "logit_bias", "on_reward_failure",
                          "correct", "correct_limit")


def check_used(kind: Kind, given: Mapping[str, Any]) -> None:
    """Refuse what the user asked for and nothing will read.

    Raises:
        UserError: naming the first such option.
    """
    unused = [name for name in UNUSED_WITHOUT_SAMPLES if kind == "given" and name in given]
    if unused:
        raise UserError(f"{unused[0]} = {given[unused[0]]!r}: nothing is sampled, the run learns from given answers")
