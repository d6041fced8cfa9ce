"""Everything that a run can be told, beside the method's own hyperparameters.  All of it lands in config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from posttrain.core.types import Count, Fraction, Natural, NonNegative, Positive, check_ranges


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of `posttrain train`.

    Raises:
        UserError: on a value outside its range, naming the option, the value and what is allowed.
    """

    policy: str = "smollm2-135m"  # a known name, a Hugging Face folder, or org/name on the hub
    task: str = "addition"  # a task's name, a .jsonl file, or module:function
    steps: Count = 100  # updates from fresh samples
    seed: Natural = 0  # names every random stream of the run
    out: str = ""  # run folder; empty: runs/METHOD-TASK-SEED

    prompts: Count = 8  # prompts per step
    samples: Count = 8  # completions per prompt, the group
    max_new_tokens: Count = 256  # longest completion, tokens; a task may suggest another
    temperature: Positive = 1.0  # of sampling and of every log-probability in the loss
    top_p: Fraction = 1.0  # smallest set of tokens with this probability; 1: all
    top_k: Natural = 0  # the k likeliest tokens; 0: all
    stop: tuple[str, ...] = ()  # texts that end a completion

    lr: Positive = 1e-5  # AdamW's learning rate at the start
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"  # decay to 10% of lr at the last step
    warmup: Natural = 0  # steps over which the learning rate rises from 0
    betas: tuple[float, float] = (0.9, 0.95)  # AdamW's averages
    weight_decay: NonNegative = 0.0  # AdamW's, decoupled
    max_grad_norm: Positive = 1.0  # global norm above which gradients are scaled down
    lora: Natural = 0  # rank of LoRA adapters; 0: every weight is trained
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of compute; master weights are always fp32
    tokens_per_micro_batch: Count = 2048  # bounds the memory of the training pass

    verifier: str = ""  # name, or module:function, for a task of your own
    heldout: str = ""  # .jsonl file of held-out problems for a task of your own
    on_reward_failure: Literal["drop", "zero", "stop"] = "drop"  # when a verifier raises, blocks or returns NaN
    reward_timeout: Positive = 10.0  # seconds that one verifier call may take

    eval_every: Natural = 0  # steps between held-out evaluations; 0: only before and after
    eval_problems: Count = 200  # held-out problems in each evaluation
    checkpoint_every: Count = 25  # steps between checkpoints
    keep_checkpoints: Count = 2  # newest checkpoints kept
    threads: Natural = 0  # CPU threads; 0: one per core

    def __post_init__(self) -> None:
        check_ranges(self)
