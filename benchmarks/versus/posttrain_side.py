"""posttrain's side: the loop of `posttrain train` itself, with a random reward and a clock."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from posttrain.core.runtime import configure_process
from posttrain.train.display import Display
from versus.channel import Channel, peak_bytes
from versus.stopwatch import Stopwatch, tap
from versus.workload import TASK, RandomReward, Workload

if TYPE_CHECKING:
    from posttrain.rollout.groups import Rollout
    from posttrain.train.run import Trainer


class Latest(Display):
    """Remembers what the loop said of its latest step."""

    metrics: Mapping[str, float]
    timing: Mapping[str, float]
    rollout: Rollout

    def step(self, step: int, metrics: Mapping[str, float], timing: Mapping[str, float]) -> None:
        self.metrics, self.timing = metrics, timing

    def see(self, rollout: Rollout) -> None:
        self.rollout = rollout


def build(workload: Workload, out: str, latest: Latest, stack: ExitStack) -> Trainer:
    """The trainer that `posttrain train grpo` runs, but for its rewards and its stop tokens, as the workload says."""
    import posttrain
    from posttrain.rewards.scoring import Scorer
    from posttrain.train.config import LanguageConfig
    from posttrain.train.run import Trainer

    w = workload
    config = LanguageConfig(policy=w.folder, task=TASK, steps=w.steps, seed=w.seed, out=out, prompts=w.prompts,
                    samples=w.samples, max_new_tokens=w.new_tokens, temperature=w.temperature, lr=w.lr,
                    lr_schedule="constant", betas=w.betas, max_grad_norm=w.max_grad_norm,
                    precision=w.precision, threads=w.threads)  # type: ignore[arg-type]
    method = posttrain.method("grpo", kl_coef=0.0, clip_low=w.clip, clip_high=w.clip)
    trainer = Trainer(method, config, latest, False, stack)
    source = trainer.setting.source
    if not w.verified:
        source.scorer = stack.enter_context(Scorer(RandomReward(trainer.setting.task)))
    if w.fixed_length:
        source.sampling = dataclasses.replace(source.sampling, stop_tokens=())
    return trainer


def stages(timing: Mapping[str, float], watched: Mapping[str, float], wall: float) -> dict[str, float]:
    """Seconds by stage; the loop itself tells rollout from learning, the watch what learning is made of."""
    optimizer, weights = watched["optimizer"], watched["weights to engine"]
    gradient = timing["prepare"] + timing["learn"] - optimizer
    known = {"rollout": timing["rollout"], "loss and gradient": gradient, "optimizer": optimizer,
             "weights to engine": weights}
    return known | {"rest": wall - sum(known.values())}


def main(workload: Workload) -> None:
    channel = Channel()
    configure_process()
    import torch

    with tempfile.TemporaryDirectory(prefix="posttrain-benchmark-") as folder, ExitStack() as stack:
        latest, watch = Latest(), Stopwatch()
        trainer = build(workload, f"{folder}/run", latest, stack)
        tap(trainer.setting.source, "next", latest.see)
        watch.wrap(trainer.learner.optimizers["policy"], "step", "optimizer")
        watch.wrap(trainer.setting.model.engine, "update", "weights to engine")
        channel.send(stop_tokens=sorted(trainer.setting.model.stop_tokens), threads=torch.get_num_threads())
        source = trainer.setting.source
        for step in range(workload.steps):
            channel.wait()
            source.sampling = dataclasses.replace(source.sampling, max_new_tokens=workload.longest(step))
            started = time.perf_counter()
            trainer.step()
            wall = time.perf_counter() - started
            channel.send(**report(latest), seconds=wall, stages=stages(latest.timing, watch.take(), wall),
                         peak_bytes=peak_bytes())


def report(latest: Latest) -> dict[str, Any]:
    """What was worked on."""
    batch = latest.rollout.batch
    return {"prompts": batch.payload.prompts, "lengths": batch.mask.sum(1).tolist(),  # type: ignore[attr-defined]
            "grad_norm": latest.metrics["grad_norm"], "reward": latest.metrics["reward"],
            "skipped": latest.metrics["silent"]}


if __name__ == "__main__":
    main(Workload.load(sys.argv[1]))
