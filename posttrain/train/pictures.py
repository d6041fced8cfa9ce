"""A run that trains a policy to make pictures: groups of one label each, a reward, held-out noise."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from posttrain.core import Batch, Curriculum, Groups, Method, Models
from posttrain.core.errors import UserError
from posttrain.core.seeds import derive
from posttrain.evaluate.intervals import mean_interval
from posttrain.evaluate.picture_policy import draw, heldout, show
from posttrain.evaluate.pictures import diversity
from posttrain.policies.denoising import DenoisingPolicy, PictureValue, payload
from posttrain.policies.digits import load_judge
from posttrain.policies.pictures import makes_digits, open_policy
from posttrain.rewards.pictures import greys
from posttrain.rollout.pictures import PictureSource, reward_of
from posttrain.train.config import PictureConfig
from posttrain.train.kinds import KINDS
from posttrain.train.objective import counted, method_name, updates
from posttrain.train.setting import Sample


class Drawn:
    """A batch, as the setting's own material."""

    def __init__(self, batch: Groups) -> None:
        self.batch = batch


class PictureSetting:
    """The `Setting` of picture policies."""

    rounds = 1

    def __init__(self, method: Method[Any], config: PictureConfig, curriculum: Curriculum | None) -> None:
        self.method, self.config = method, config
        check_material(method, config)
        given = {} if config.spread is None else {"spread": config.spread}
        self.policy = open_policy(config.policy, config.captions, steps=config.denoising_steps, **given)
        check_fit(method, self.policy, config)
        check_sampler(self.policy, config)
        self.policy.rows_together = config.pictures_per_micro_batch or self.policy.rows_together
        self.spread = self.policy.spread
        self.judge = load_judge() if makes_digits(self.policy) else None
        self.reward = reward_of(config.task, self.policy, self.judge)
        if config.given and self.judge is None:
            raise UserError(f"given = {config.given}: the real pictures are digits, and these are {self.policy.shape}")
        self.anchor = self.policy.initial()
        drawing = self.anchor if method.sampled_by == "anchor" else self.policy
        self.source = PictureSource(drawing, self.reward, config.prompts, config.samples, config.seed,
                                    shared_start=config.shared_start, drawn=config.drawn, step_share=config.step_share,
                                    interval=config.interval, total=config.steps, given=config.given)
        self.notes: tuple[str, ...] = ()
        self.facts = {"spread_used": self.spread, **({"judge_accuracy": self.judge.accuracy} if self.judge else {})}
        self.heldout = heldout(self.policy, config.eval_pictures, config.seed)

    def networks(self) -> Mapping[str, Callable[[], Any]]:
        return {"reference": self.policy.initial, "anchor": lambda: self.anchor, "policy_target": self.policy.initial,
                "critic": self._critic}

    def _critic(self) -> PictureValue:
        net = self.policy.net
        return PictureValue(net.size, net.labels, self.policy.steps, net.width,
                            torch.Generator().manual_seed(derive(self.config.seed, "critic")))

    # ------------------------------------------------------------------ what a step learns from

    def meet(self, models: Models) -> None:
        """The policy alone acts."""

    def open(self, stack: ExitStack, rollouts: Path) -> None:
        self.rollouts = rollouts

    def next(self, step: int) -> Drawn:
        return Drawn(self.source.next(step))

    def learnt(self, step: int, material: Drawn, batch: Batch) -> dict[str, float]:
        made = material.batch
        told = payload(made)
        assert isinstance(batch, Groups)
        advantage = batch.credit.tolist() if batch.advantage is not None else [[] for _ in range(len(batch))]
        table = pa.table({"group": made.unit.tolist(), "label": told.label.tolist(), "reward": made.reward.tolist(),
                          "given": made.extra["given"].tolist(),
                          "advantage": advantage, "log_prob": made.logp_behaviour.tolist(),
                          "picture": greys(told.picture)})  # 64 bytes, 0 black to 16 white
        temporary = self.rollouts / f".step-{step + 1:06d}.tmp"
        pq.write_table(table, temporary, compression="zstd")
        os.replace(temporary, self.rollouts / f"step-{step + 1:06d}.parquet")
        own = ~made.extra["given"]
        return {"reward": float(made.reward[own].mean()), "diversity": diversity(told.picture[own], told.label[own])}

    def sample(self, material: Drawn, batch: Batch) -> Sample | None:
        return None

    def save(self, final: Path) -> None:
        self.policy.save(final)

    def state(self) -> dict[str, Any]:
        return {}

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """A step depends on nothing but its number and the policy."""

    # ------------------------------------------------------------------ how good it is

    def evaluate(self, when: str) -> dict[str, Any]:
        """Rewards of what the deterministic sampler makes of noise that training never sees, and how much it varies.

        A page of it is drawn as pictures/WHEN.png in the run folder.
        """
        made = draw(self.policy, self.reward, self.judge, self.heldout)
        show(made.picture, self.policy, self.rollouts.parent / "pictures" / f"{when.replace(' ', '-')}.png")
        scores = made.scores
        return {"picture_reward": sum(scores) / len(scores), "interval": mean_interval(scores), "scores": scores,
                **made.measures}

    # ------------------------------------------------------------------ what will be done, in words

    def describe(self, method: Method[Any]) -> list[tuple[str, str]]:
        config = self.config
        rows = config.prompts * config.samples
        beside = f", beside {config.given} real ones of each label" * (config.given > 0)
        steps, trained = self.policy.steps, [p for p in self.policy.parameters() if p.requires_grad]
        which = ("each" if config.drawn == "every" else "one of each group’s") + " drawn"
        if config.step_share < 1:
            which += f" and {100 * config.step_share:g}% of those learnt"
        if config.interval < 1:
            which += f", the last {100 * config.interval:g}% learnt at first and all at the end"
        return [
            ("batch", f"{counted(config.prompts, 'label')} × {counted(config.samples, 'sample')} = "
                      f"{counted(rows, 'picture')} of {counted(steps, 'denoising step')}, {which}{beside}, a step; "
                      + updates(method)),
            ("clip unit", f"one {self.policy.decision}, log-probabilities a mean over {self.policy.net.size} numbers"
                          f"{_clip(method)}"),
            ("policy", f"{config.policy}: {sum(map(torch.numel, trained)):,} trained weights, spread {self.spread:g}, "
                       "fp32"),
        ] + [("judge", f"a classifier, right about {100 * judge.accuracy:.1f}% of held-out digits")
             for judge in (self.judge,) if judge]


def check_material(method: Method[Any], config: PictureConfig) -> None:
    """
    Raises:
        UserError: unless the method learns from what this setting can make.
    """
    name = method_name(method)
    both = method.learns_from == "both" and "pictures" in method.kinds
    if method.learns_from not in ("samples", "preferences") and not both:
        raise UserError(f"method = {name!r}: learns from {method.learns_from}, and a picture policy has only its own "
                        "samples")
    if both != (config.given > 0):
        raise UserError(f"given = {config.given}: " + ("must be ≥ 1, " if both else "must be 0, ")
                        + f"{name!r} learns from " + ("samples beside real pictures" if both else "samples alone"))


def check_fit(method: Method[Any], policy: DenoisingPolicy, config: PictureConfig) -> None:
    """
    Raises:
        UserError: where the method asks for a fit that the policy's pictures do not have.
    """
    if method.fits and policy.without_fit:
        raise UserError(f"method = {method_name(method)!r}: asks how well the net tells pictures from noise, and "
                        f"{config.policy!r} {policy.without_fit}")


def check_sampler(policy: DenoisingPolicy, config: PictureConfig) -> None:
    """
    Raises:
        UserError: on steps that could not be learnt from.
    """
    if not policy.last_decides and config.denoising_steps == 1:
        raise UserError(f"denoising_steps = 1: must be ≥ 2, the last step of {config.policy!r} decides nothing")
    if config.drawn == "one" and config.interval < 1:
        raise UserError(f"interval = {config.interval:g}: with drawn = 'one' a group has one step to learn, not an "
                        "interval of them")
    spread = config.spread
    if spread is not None and policy.most_spread == 0:
        raise UserError(f"spread = {spread:g}: {config.policy!r} has none, it learns how far its first noise spreads")
    if spread is not None and not 0 < spread <= policy.most_spread:
        raise UserError(f"spread = {spread:g}: must be > 0, so that steps are decisions"
                        f"{f', and ≤ {policy.most_spread:g}' * (policy.most_spread < math.inf)}")


def _clip(method: Method[Any]) -> str:
    """Which clip range is used, and whose it is."""
    told = {name: value for name in ("clip_low", "clip_high") if (value := getattr(method, name, None)) is not None}
    if not told:
        return ""
    clip = KINDS["pictures"].clip
    numbers = ", ".join(f"{name} = {value:g}{' (this policy’s default)' * (value == clip)}"
                        for name, value in told.items())
    return f"; {numbers}"
