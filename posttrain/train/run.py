"""One run from its options to its final policy: set up, evaluate, loop, save, say what improved."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from posttrain.core import Curriculum, Method
from posttrain.core.errors import PosttrainError, UserError
from posttrain.core.seeds import derive
from posttrain.evaluate.measures import MEASURES, gain_interval
from posttrain.train import checkpoint
from posttrain.train.config import Config
from posttrain.train.display import Display
from posttrain.train.folder import RunFolder, read_rows
from posttrain.train.interrupt import Interrupt
from posttrain.train.kinds import open_setting
from posttrain.train.learner import Learner
from posttrain.train.loop import Meter, Pace
from posttrain.train.objective import describe, method_spec
from posttrain.train.optim import FlatAdamW, schedule
from posttrain.train.report import tell


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    summary: dict[str, Any]


def train(method: Method[Any], config: Config, display: Display | None = None, resume: bool = False,
          curriculum: Curriculum | None = None) -> Run:
    """Train, or go on training, and leave the result in the run folder.

    curriculum: the one that `config` names, with its hyperparameters.

    Raises:
        UserError: on options that cannot be; nothing has been written then.
        PosttrainError: when the run cannot go on; it can be resumed.
        KeyboardInterrupt: after the present step was saved; it can be resumed.
    """
    with ExitStack() as stack:
        trainer = Trainer(method, config, display or Display(), resume, stack, curriculum)
        return trainer.run()


class Trainer:
    """Everything that a run holds in memory, built before anything is written."""

    def __init__(self, method: Method[Any], config: Config, display: Display, resume: bool, stack: ExitStack,
                 curriculum: Curriculum | None = None) -> None:
        self.method, self.config, self.display = method, config, display
        torch.set_num_threads(config.threads or torch.get_num_threads())
        self.folder = RunFolder(Path(config.out))
        self.setting = open_setting(method, config, curriculum)
        self.learner = Learner(method, self._networks(), partial(FlatAdamW, betas=config.betas,
                                                                 weight_decay=config.weight_decay))
        self.setting.meet(self.learner.models)
        self.lr = schedule(config.lr_schedule, config.lr, config.warmup, config.steps)
        self.done = 0
        self.noted = 0
        self._note()
        if resume:
            self._restore()
        else:
            self.folder.create(self._record())
        stack.callback(self.folder.release)
        self.setting.open(stack, self.folder.rollouts)

    def _networks(self) -> dict[str, Any]:
        built = {"policy": lambda: self.setting.policy, **self.setting.networks()}
        missing = set(self.method.needs) - set(built)
        if missing:
            raise UserError(f"method needs {', '.join(sorted(missing))}: this policy brings only {', '.join(built)}")
        return {name: built[name]() for name in self.method.needs}

    def _record(self) -> dict[str, Any]:
        """What config.json says."""
        from posttrain import __version__

        return {"method": method_spec(self.method), "hyperparameters": dataclasses.asdict(self.method),
                "config": dataclasses.asdict(self.config), "curriculum": {}, "begun_in": str(Path.cwd()),
                "versions": {"posttrain": __version__, "torch": torch.__version__},
                "threads": torch.get_num_threads(), **self.setting.facts}

    def _restore(self) -> None:
        if self.folder.final.exists():
            raise UserError(f"out = '{self.folder.path}': this run is complete; nothing to resume")
        self.folder.hold()
        found, complaints = checkpoint.load_newest(self.folder.checkpoints)
        for line in complaints:
            self.display.note(line)
        if found is not None:
            self.learner.load(found.tensors, found.data["state"])
            self.setting.load(found.data["setting"], found.tensors)
            self.done = found.step
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
        except BrokenPipeError:  # the reader of what is printed left; the disk has room
            raise
        except (OSError, SafetensorError) as error:
            raise PosttrainError(f"step {self.done}: cannot write to {self.folder.path}: {error}; once there is room: "
                                 f"posttrain train --resume {self.folder.path}") from error

    def _run(self) -> Run:
        self.display.objective(describe(self.method, self.config, self.setting))
        if not self._evaluated("before"):
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
        if not self._evaluated("after"):
            self._evaluate("after")
        self.setting.save(self.folder.final)
        summary = self._summary()
        checkpoint.write_json(self.folder.summary, summary)
        self.display.finish(tell(summary, self.folder.path, self.config))
        return Run(self.folder.path, summary)

    def step(self) -> None:
        """Source and update, as often as makes a step, and what is kept of both."""
        started = time.perf_counter()
        seen, timing = Meter(), defaultdict[str, float](float)
        pace = Pace(self.lr(self.done), self.config.max_grad_norm)
        for i in range(self.setting.rounds):
            number, begun = self.done * self.setting.rounds + i, time.perf_counter()
            material = self.setting.next(number)
            timing["rollout"] += time.perf_counter() - begun
            generator = torch.Generator().manual_seed(derive(self.config.seed, "minibatches", number))
            batch, metrics, seconds = self.learner.update(material.batch, pace, generator)
            for stage, spent in seconds.items():
                timing[stage] += spent
            for name, value in (self.setting.learnt(number, material, batch) | metrics).items():
                seen.add(name, value, 1)
        metrics = seen.means() | {"lr": pace.lr}
        self.done += 1
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise PosttrainError(f"step {self.done}: {bad[0]} = {metrics[bad[0]]}; the run stopped before it was saved")
        timing["total"] = time.perf_counter() - started
        self.folder.append(self.folder.timing, {"step": self.done, **timing})
        self.folder.append(self.folder.metrics, {"step": self.done, **metrics})
        self._note()
        self.display.step(self.done, metrics, timing)
        if sample := self.setting.sample(material, batch):
            self.display.sample(*sample)

    def _note(self) -> None:
        """What the setting has to say that was not said yet."""
        for note in self.setting.notes[self.noted:]:
            self.display.note(note)
        self.noted = len(self.setting.notes)

    def _checkpoint(self) -> None:
        checkpoint.save(self.folder.checkpoints, self.done, self.learner.tensors() | self.setting.tensors(),
                        {"state": self.learner.models.state, "setting": self.setting.state()},
                        self.config.keep_checkpoints)

    def _evaluated(self, when: str) -> bool:
        return any(row["when"] == when for row in read_rows(self.folder.evaluations))

    def _evaluate(self, when: str) -> None:
        started = time.perf_counter()
        row = {"step": self.done, "when": when, **self.setting.evaluate(when)}
        self.folder.append(self.folder.evaluations, row)
        self.display.evaluation(when, row)
        self.folder.append(self.folder.timing, {"step": self.done, "evaluation": time.perf_counter() - started})

    def _summary(self) -> dict[str, Any]:
        rows = {row["when"]: row for row in read_rows(self.folder.evaluations)}
        before, after = rows["before"], rows["after"]
        timing = read_rows(self.folder.timing)
        measure = next(name for name in MEASURES if name in after)
        names = (measure, "interval", "other_skills", "other_interval", "kl_task", "kl_other")
        return {"measure": measure, "before": {name: before[name] for name in names if name in before},
                "after": {name: after[name] for name in names if name in after},
                "gain": after[measure] - before[measure],
                "gain_interval": gain_interval(measure, before["scores"], after["scores"]),
                "problems": len(after["scores"]), "steps": self.done,
                "training_seconds": sum(row.get("total", 0.0) for row in timing),
                "evaluation_seconds": sum(row.get("evaluation", 0.0) for row in timing)}
