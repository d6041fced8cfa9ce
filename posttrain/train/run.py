"""One run from its options to its final policy: set up, evaluate, loop, save, say what improved."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from posttrain import ops
from posttrain.core import Groups, Method, Models
from posttrain.core.errors import PosttrainError, UserError
from posttrain.core.seeds import derive
from posttrain.evaluate.accuracy import divergence, greedy_accuracy
from posttrain.evaluate.intervals import paired_interval
from posttrain.policies.load import initial_policy, load_language_model
from posttrain.policies.pretrained import resolve
from posttrain.rewards.scoring import Scorer
from posttrain.rollout.engine import Sampling
from posttrain.rollout.groups import GroupSource, Rollout
from posttrain.tasks import load_task
from posttrain.train import checkpoint
from posttrain.train.config import Config
from posttrain.train.display import Display
from posttrain.train.folder import RunFolder, read_rows
from posttrain.train.interrupt import Interrupt
from posttrain.train.loop import Measured, Pace, update
from posttrain.train.objective import describe
from posttrain.train.optim import FlatAdamW, schedule
from posttrain.train.records import write_rollout
from posttrain.train.report import tell

RETENTION_PROBLEMS = 64
CHECKED_PROMPTS = 256  # encoded before anything is written
DIVERGENCE_PROBLEMS = 16  # some 300 tokens: enough for a mean per token


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    summary: dict[str, Any]


def train(method: Method[Groups], config: Config, display: Display | None = None, resume: bool = False) -> Run:
    """Train, or go on training, and leave the result in the run folder.

    Raises:
        UserError: on options that cannot be; nothing has been written then.
        PosttrainError: when the run cannot go on; it can be resumed.
        KeyboardInterrupt: after the present step was saved; it can be resumed.
    """
    with ExitStack() as stack:
        trainer = Trainer(method, config, display or Display(), resume, stack)
        return trainer.run()


class Trainer:
    """Everything that a run holds in memory, built before anything is written."""

    def __init__(self, method: Method[Groups], config: Config, display: Display, resume: bool, stack: ExitStack
                 ) -> None:
        self.method, self.config, self.display = method, config, display
        torch.set_num_threads(config.threads or torch.get_num_threads())
        self.folder = RunFolder(Path(config.out))
        self.task = load_task(config.task, verifier=config.verifier or None, heldout_file=config.heldout or None)
        self.model = load_language_model(
            resolve(config.policy), max_new_tokens=config.max_new_tokens, precision=config.precision,
            lora=config.lora, seed=config.seed, tokens_per_micro_batch=config.tokens_per_micro_batch)
        self._check_prompts()
        for note in self.model.notes:
            display.note(note)
        self.models = Models(method.initial_state(), **self._networks())
        self.optimizer = FlatAdamW(self.model.policy.module, config.betas, config.weight_decay)
        self.lr = schedule(config.lr_schedule, config.lr, config.warmup, config.steps)
        self.done = 0
        if resume:
            self._restore()
        else:
            self.folder.create(self._record())
        stack.callback(self.folder.release)
        self.scorer = stack.enter_context(Scorer(self.task, timeout=config.reward_timeout))
        self.others = load_task("retention")
        self.other_scorer = stack.enter_context(Scorer(self.others))
        sampling = Sampling(max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p,
                            top_k=config.top_k, stop_tokens=self.model.stop_tokens, stop_strings=config.stop)
        self.source = GroupSource(self.task, self.scorer, self.model.engine, self.model.prompter, sampling,
                                  config.prompts, config.samples, config.seed, config.on_reward_failure)

    def _check_prompts(self) -> None:
        """Held-out prompts and the first of the training prompts fit in the context; a later one ends the run."""
        first = min(self.config.steps * self.config.prompts, CHECKED_PROMPTS)
        training = (self.task.train(i, self.config.seed) for i in range(first))
        for problem in (*training, *self.task.heldout(self.config.eval_problems)):
            self.model.prompter.encode(problem.prompt)

    def _networks(self) -> dict[str, Any]:
        built: dict[str, Callable[[], Any]] = {"policy": lambda: Measured(self.model.policy),
                                               "reference": lambda: initial_policy(self.model)}
        missing = set(self.method.needs) - set(built)
        if missing:
            raise UserError(f"method needs {', '.join(sorted(missing))}: a language model brings only "
                            f"{', '.join(built)}")
        return {name: built[name]() for name in self.method.needs}

    def _record(self) -> dict[str, Any]:
        """What config.json says."""
        from posttrain import __version__

        return {"method": method_name(self.method), "hyperparameters": dataclasses.asdict(self.method),
                "config": dataclasses.asdict(self.config), "versions": {"posttrain": __version__,
                                                                        "torch": torch.__version__},
                "precision": self.model.precision, "threads": torch.get_num_threads()}

    def _restore(self) -> None:
        if self.folder.final.exists():
            raise UserError(f"out = '{self.folder.path}': this run is complete; nothing to resume")
        self.folder.hold()
        found, complaints = checkpoint.load_newest(self.folder.checkpoints)
        for line in complaints:
            self.display.note(line)
        if found is not None:
            self.optimizer.load(found.tensors)
            self.models.state = dict(found.data["state"])
            self.done = found.step
            self.model.engine.update()
        self.display.note(f"resumed after step {self.done}")
        self.folder.rewind(self.done)

    # ------------------------------------------------------------------ the run

    def run(self) -> Run:
        """
        Raises:
            PosttrainError: also when the disk takes no more; what is on it stays as it is.
        """
        try:
            return self._run()
        except (OSError, SafetensorError) as error:
            raise PosttrainError(f"step {self.done}: cannot write to {self.folder.path}: {error}; once there is room: "
                                 f"posttrain train --resume {self.folder.path}") from error

    def _run(self) -> Run:
        self.display.objective(describe(self.method, self.config, self.model))
        if not any(row["when"] == "before" for row in read_rows(self.folder.evaluations)):
            self._evaluate("before")
        self.display.begin(self.done + 1, self.config.steps)
        with Interrupt(self.display.note) as interrupt:
            while self.done < self.config.steps:
                self.step()
                last = self.done == self.config.steps
                if self.config.eval_every and self.done % self.config.eval_every == 0 and not last:
                    self._evaluate(f"step {self.done}")
                if interrupt.asked or (self.done % self.config.checkpoint_every == 0 and not last):
                    self._checkpoint()
                if interrupt.asked:
                    raise KeyboardInterrupt
        if not any(row["when"] == "after" for row in read_rows(self.folder.evaluations)):
            self._evaluate("after")
        self.model.policy.save(self.folder.final)
        summary = self._summary()
        checkpoint.write_json(self.folder.summary, summary)
        self.display.finish(tell(summary, self.folder.path, self.config))
        return Run(self.folder.path, summary)

    def step(self) -> None:
        """Source, update, and what is kept of both."""
        started = time.perf_counter()
        rollout = self.source.next(self.done)
        sampled = time.perf_counter()
        if len(rollout.batch) == 0:
            raise PosttrainError(f"step {self.done + 1}: the verifier failed on every completion, "
                                 f"first: {rollout.failures[0]}")
        generator = torch.Generator().manual_seed(derive(self.config.seed, "minibatches", self.done))
        batch, metrics, seconds = update(self.method, self.models, self.optimizer, rollout.batch,
                                         Pace(self.lr(self.done), self.config.max_grad_norm), generator)
        self.model.engine.update()
        metrics = rollout_metrics(rollout, batch) | metrics | {"lr": self.lr(self.done)}
        self.done += 1
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise PosttrainError(f"step {self.done}: {bad[0]} = {metrics[bad[0]]}; the run stopped before it was saved")
        timing = {"rollout": sampled - started, **seconds, "total": time.perf_counter() - started}
        write_rollout(self.folder.rollouts, self.done, rollout, batch)
        self.folder.append(self.folder.timing, {"step": self.done, **timing})
        self.folder.append(self.folder.metrics, {"step": self.done, **metrics})
        self.display.step(self.done, metrics, timing)
        self.display.sample(rollout.prompts[0], rollout.completions[0], float(batch.reward[0]))

    def _checkpoint(self) -> None:
        checkpoint.save(self.folder.checkpoints, self.done, self.optimizer.state(), {"state": self.models.state},
                        self.config.keep_checkpoints)

    def _evaluate(self, when: str) -> None:
        """Held-out accuracy on the task and on other skills, and, after training, the distance travelled."""
        started, config = time.perf_counter(), self.config
        task = self.task.heldout(config.eval_problems)
        others = self.others.heldout(RETENTION_PROBLEMS)
        row: dict[str, Any] = {"step": self.done, "when": when}
        accuracy = greedy_accuracy(self.model, task, self.scorer, config.max_new_tokens, config.stop)
        row |= {"accuracy": accuracy.mean, "interval": accuracy.interval, "scores": accuracy.scores,
                "failures": accuracy.failures}
        if when in ("before", "after"):
            other = greedy_accuracy(self.model, others, self.other_scorer, 24)
            row |= {"other_skills": other.mean, "other_interval": other.interval}
        if when == "after":
            initial = initial_policy(self.model)
            row |= {"kl_task": divergence(self.model, initial, task[:DIVERGENCE_PROBLEMS], config.max_new_tokens,
                                           config.seed),
                    "kl_other": divergence(self.model, initial, others[:DIVERGENCE_PROBLEMS], 24, config.seed)}
        self.folder.append(self.folder.evaluations, row)
        self.display.evaluation(when, row)
        self.folder.append(self.folder.timing, {"step": self.done, "evaluation": time.perf_counter() - started})

    def _summary(self) -> dict[str, Any]:
        rows = {row["when"]: row for row in read_rows(self.folder.evaluations)}
        before, after = rows["before"], rows["after"]
        timing = read_rows(self.folder.timing)
        names = ("accuracy", "interval", "other_skills", "other_interval")
        return {"before": {name: before[name] for name in names},
                "after": {name: after[name] for name in (*names, "kl_task", "kl_other")},
                "gain": after["accuracy"] - before["accuracy"],
                "gain_interval": paired_interval(before["scores"], after["scores"]),
                "problems": len(after["scores"]), "steps": self.done,
                "training_seconds": sum(row.get("total", 0.0) for row in timing),
                "evaluation_seconds": sum(row.get("evaluation", 0.0) for row in timing)}


def method_name(method: Method[Any]) -> str:
    """The name that the user types: the stem of the method's file."""
    return type(method).__module__.rpartition(".")[2].replace("_", "-")


def rollout_metrics(rollout: Rollout, batch: Groups) -> dict[str, float]:
    """What the samples of one step look like."""
    lengths = batch.mask.sum(1).float()
    return {"reward": float(batch.reward.mean()), "length": float(lengths.mean()),
            "finished": float(batch.finished.float().mean()), "tokens": float(lengths.sum()),
            "groups_without_signal": constant_share(batch), "reward_failures": float(len(rollout.failures)),
            "rows_dropped": float(rollout.dropped)}


def constant_share(batch: Groups) -> float:
    """The share of rows whose group got equal rewards."""
    return float(ops.is_constant(batch.reward, batch.group).float().mean())
