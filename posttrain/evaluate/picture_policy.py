"""Measure a policy that makes pictures: mean reward with an interval, how much they differ, and a page of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from posttrain.core.errors import UserError
from posttrain.core.seeds import derive
from posttrain.evaluate.intervals import mean_interval
from posttrain.evaluate.pictures import diversity, write_grid
from posttrain.evaluate.relief import relief
from posttrain.policies.denoising import DenoisingPolicy
from posttrain.policies.digits import Judge, load_judge
from posttrain.policies.pictures import makes_digits, open_policy
from posttrain.rollout.pictures import Reward, reward_of

SHOWN = 8  # pictures of each label on a page


class Heldout(NamedTuple):
    """What an evaluation asks for, the same at every one of its seed."""

    label: Tensor  # [n] long
    start: Tensor  # [n, D] standard normal


def heldout(policy: DenoisingPolicy, pictures: int, seed: int) -> Heldout:
    """Every label in turn, and noise that training with this seed never sees."""
    generator = torch.Generator().manual_seed(derive(seed, "heldout"))
    return Heldout(torch.arange(pictures) % policy.net.labels,
                   torch.randn(pictures, policy.net.size, generator=generator))


class Drawn(NamedTuple):
    """Pictures [n, D], and what each is worth."""

    picture: Tensor
    scores: list[float]
    measures: dict[str, Any]


def draw(policy: DenoisingPolicy, reward: Reward, judge: Judge | None, asked: Heldout) -> Drawn:
    """What the deterministic sampler makes of it.

    recognised: of digits, the share of pictures that the classifier takes for what they should show.
    diversity: mean distance between two pictures of one label; 0 is collapse.
    """
    made = policy.pictures(asked.label, asked.start)
    scores = reward(made, asked.label).tolist()
    measures = {"diversity": diversity(made, asked.label)}
    if judge is not None:
        right = judge.probabilities(made).argmax(1) == asked.label
        measures = {"recognised": float(right.float().mean()), **measures}
    return Drawn(made, scores, measures)


def show(made: Tensor, policy: DenoisingPolicy, file: Path) -> None:
    """A page of pictures [n, D] whose labels come in turn: a row for each label."""
    labels = policy.net.labels
    shown = made[:labels * SHOWN]
    whole = shown[:len(shown) // labels * labels]
    page = whole.view(-1, labels, made.shape[1]).transpose(0, 1).reshape(whole.shape) if len(whole) else shown
    channels, width = policy.shape.channels, policy.shape.width
    if policy.depicts == "terrain":
        channels, page = 3, relief(page, width)
    write_grid(file, page, max(1, len(whole) // labels), channels, width)


def evaluate_pictures(target: str, task: str, *, pictures: int = 200, seed: int = 0, denoising_steps: int = 0,
                      captions: str = "", grid: str = "") -> dict[str, Any]:
    """`target` is whatever names a policy (`open_policy`).  With `grid`, a page is drawn there.

    denoising_steps: of the sampler; 0: as the policy was trained.  captions: a file, as of `open_policy`.

    Raises:
        UserError: if there is no such policy or task, or the page could not be written.
    """
    check_grid(grid)
    policy = open_policy(target, captions, **({"steps": denoising_steps} if denoising_steps else {}))
    judge = load_judge() if makes_digits(policy) else None
    reward = reward_of(task, policy, judge)
    asked = heldout(policy, pictures, seed)
    made = draw(policy, reward, judge, asked)
    if grid:
        show(made.picture, policy, Path(grid))
    further = {"judge_accuracy": judge.accuracy} if judge else {}
    return {"task": task, "pictures": pictures, "denoising_steps": policy.sampler_steps,
            "picture_reward": sum(made.scores) / pictures, "picture_reward_95": list(mean_interval(made.scores)),
            **made.measures, **further, **({"grid": grid} if grid else {})}


def check_grid(grid: str) -> None:
    """
    Raises:
        UserError: on a file that could not be written.
    """
    file = Path(grid)
    if not grid:
        return
    if file.suffix != ".png":
        raise UserError(f"grid = '{grid}': must end in .png")
    if file.exists():
        raise UserError(f"grid = '{grid}': exists already; name another file")
    if not file.parent.is_dir():
        raise UserError(f"grid = '{grid}': there is no folder '{file.parent}'")
