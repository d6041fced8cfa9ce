"""TRL's side: its own GRPOTrainer with the same settings, paused between steps."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from math import nan
from typing import Any

from posttrain.core.runtime import configure_process
from posttrain.tasks import load_task
from versus.channel import Channel, peak_bytes
from versus.stopwatch import Stopwatch, tap
from versus.workload import TASK, RandomReward, Workload


class Latest:
    """What TRL worked on in its latest step."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.prompts: list[list[int]] = []
        self.lengths: list[int] = []
        self.grad_norm = 0.0
        self.reward = nan

    def generated(self, result: tuple[Any, ...]) -> None:
        """`_generate` returns the ids of every row's prompt and completion first."""
        prompt_ids, completion_ids = result[:2]
        self.prompts = [list(ids) for ids in prompt_ids[:: self.samples]]
        self.lengths = [len(ids) for ids in completion_ids]

    def scored(self, rewards: Any) -> None:
        self.reward = float(rewards.mean())

    def clipped(self, norm: Any) -> None:
        self.grad_norm = float(norm)


def settings(workload: Workload, folder: str) -> Any:
    """The same step as posttrain's.

    TRL's faster choice is taken where it has one: no recomputed activations, and one training pass over the
    whole batch, unless the workload says otherwise.
    """
    w = workload
    rows = w.prompts * w.samples
    return import_module("trl").GRPOConfig(
        output_dir=folder, use_cpu=True, bf16=w.precision == "bf16", seed=w.seed, max_steps=w.steps,
        per_device_train_batch_size=w.trl_micro_batch, gradient_accumulation_steps=rows // w.trl_micro_batch,
        generation_batch_size=rows, num_generations=w.samples, num_iterations=1, shuffle_dataset=False,
        gradient_checkpointing=w.trl_checkpointing, model_init_kwargs={"dtype": "float32"},
        max_completion_length=w.new_tokens, temperature=w.temperature, top_p=1.0, top_k=0,
        generation_kwargs={"min_new_tokens": w.new_tokens} if w.fixed_length else None,
        loss_type="grpo", beta=0.0, epsilon=w.clip, epsilon_high=w.clip, scale_rewards="group",
        learning_rate=w.lr, lr_scheduler_type="constant", adam_beta1=w.betas[0], adam_beta2=w.betas[1],
        weight_decay=0.0, max_grad_norm=w.max_grad_norm,
        logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True)


def build(workload: Workload, folder: str) -> Any:
    """The trainer, on the same problems in the same order."""
    from datasets import Dataset

    problems, task = workload.problems(), load_task(TASK)
    rows = [{"prompt": [{"role": "user", "content": problem.prompt}], "index": i} for i, problem in enumerate(problems)]
    scoring = task if workload.verified else RandomReward(task)

    def reward(completions: list[list[dict[str, str]]], index: list[int], **_: Any) -> list[float]:
        return [scoring.score(problems[i], chat[0]["content"]) for i, chat in zip(index, completions, strict=True)]

    return import_module("trl").GRPOTrainer(model=workload.folder, reward_funcs=reward,
                                            args=settings(workload, folder),
                                            train_dataset=Dataset.from_list(rows))


def pauses(channel: Channel, watch: Stopwatch, latest: Latest, set_longest: Callable[[int], None]) -> Any:
    """A callback that waits before every step, given its number, and reports after it."""
    from transformers import TrainerCallback

    class Pauses(TrainerCallback):
        started = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            watch.wrap(given["optimizer"], "step", "optimizer")

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            channel.wait()
            set_longest(state.global_step)
            watch.take()
            self.started = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            wall = time.perf_counter() - self.started
            seconds = watch.take()
            stages = seconds | {"rest": wall - sum(seconds.values())}
            channel.send(prompts=latest.prompts, lengths=latest.lengths, grad_norm=latest.grad_norm,
                         reward=latest.reward, skipped=0.0, seconds=wall, stages=stages, peak_bytes=peak_bytes())

    return Pauses()


def train(workload: Workload, change: Callable[[Any, Latest], None]) -> None:
    """All steps, each when it is asked for; `change` prepares the trainer."""
    channel = Channel()
    configure_process()
    import torch

    torch.set_num_threads(workload.threads)
    with tempfile.TemporaryDirectory(prefix="posttrain-benchmark-") as folder:
        trainer, watch, latest = build(workload, folder), Stopwatch(), Latest(workload.samples)
        change(trainer, latest)
        tap(trainer.accelerator, "clip_grad_norm_", latest.clipped)
        watch.wrap(trainer, "_generate_and_score_completions", "rollout")
        watch.wrap(trainer, "compute_loss", "loss and gradient")
        watch.wrap(trainer.accelerator, "backward", "loss and gradient")
        watch.wrap(trainer.accelerator, "clip_grad_norm_", "optimizer")

        def set_longest(step: int) -> None:
            told = trainer.generation_config
            told.max_new_tokens = workload.longest(step)
            told.min_new_tokens = told.max_new_tokens if workload.fixed_length else None

        trainer.add_callback(pauses(channel, watch, latest, set_longest))
        channel.send(stop_tokens=sorted(trainer.eos_token_ids), threads=torch.get_num_threads())
        trainer.train()


def see(trainer: Any, latest: Latest) -> None:
    """Keep what is sampled and what it is worth."""
    tap(trainer, "_generate", latest.generated)
    tap(trainer, "_calculate_rewards", latest.scored)


if __name__ == "__main__":
    train(Workload.load(sys.argv[1]), see)
