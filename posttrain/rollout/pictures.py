"""What picture policies learn from: groups of pictures of one label each, with what each is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from posttrain.core import Groups
from posttrain.core.errors import UserError, unknown
from posttrain.core.seeds import derive
from posttrain.data.trajectories import Trajectories
from posttrain.policies.denoising import DenoisingPolicy, Shape
from posttrain.policies.digits import Judge, digits
from posttrain.rewards import pictures, terrain
from posttrain.rewards.functions import load_function

Reward = Callable[[Tensor, Tensor], Tensor]  # pictures [B, D], labels [B] -> [B]
PROPERTIES: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    name: getattr(pictures, name) for name in ("brightness", "symmetry", "compressibility", "incompressibility")}
DIGITS = tuple("digits/" + name for name in ("classifier", *PROPERTIES))
TERRAIN: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "terrain/walkable": terrain.walkable, "terrain/crossable": terrain.crossable}
TASKS = (*DIGITS, *("pictures/" + name for name in PROPERTIES), *TERRAIN)


def reward_of(task: str, policy: DenoisingPolicy, judge: Judge | None) -> Reward:
    """The reward that a task names, of this policy's pictures; judge: of digits, None where pictures are none.

    digits/classifier: the probability that the judge gives to the label.
    module:function, file.py:function: of a user's, pictures [B, C, H, W] in [−1, 1] and labels [B] -> [B].

    Raises:
        UserError: on an unknown name, or one that is not for these pictures.
    """
    shape = policy.shape
    if ":" in task:
        return users_reward(task, shape)
    if task not in TASKS:
        unknown("task", task, TASKS)
    if task in DIGITS and judge is None:
        raise UserError(f"task = {task!r}: is of grey digits, 1 × 8 × 8, and these pictures are {shape}; "
                        "pictures/NAME and module:function take any")
    if task in TERRAIN and policy.depicts != "terrain":
        raise UserError(f"task = {task!r}: is of height maps, as --policy terrain makes, and these pictures are none")
    name = task.partition("/")[2]
    if name == "classifier":
        assert judge is not None
        sure = judge.probabilities
        return lambda picture, label: sure(picture).gather(1, label[:, None])[:, 0]
    measure = TERRAIN[task] if task in TERRAIN else PROPERTIES[name]
    return lambda picture, label: measure(picture, shape.width)


def users_reward(task: str, shape: Shape) -> Reward:
    """
    Raises:
        UserError: if the function is not there; when called, if it returns anything but one number a picture.
    """
    function = load_function(task, "task")

    @torch.no_grad()
    def reward(picture: Tensor, label: Tensor) -> Tensor:
        found = torch.as_tensor(function(picture.view(-1, *shape), label), dtype=picture.dtype)
        if found.shape != label.shape or not found.isfinite().all():
            raise UserError(f"task = {task!r}: returned {tuple(found.shape)} for {len(label)} pictures, "
                            f"{int(found.isfinite().sum())} of them finite; must be one number each")
        return found

    return reward


def joined(one: Trajectories, other: Trajectories) -> Trajectories:
    """The rows of both."""
    return Trajectories(**{name: torch.cat([x, getattr(other, name)]) for name, x in vars(one).items()})


class PictureSource:
    """`prompts` labels a step, `samples` pictures of each: the groups.  A step's noise depends on its number alone.

    `given` real pictures of its label follow each group's own, as further rows, `given` in `extra`.
    """

    def __init__(self, policy: DenoisingPolicy, reward: Reward, prompts: int, samples: int, seed: int, *,
                 shared_start: bool = False, drawn: str = "every", step_share: float = 1.0,
                 interval: float = 1.0, total: int = 1, given: int = 0) -> None:
        """shared_start: a group begins as one noise.  drawn: "every" step, or "one" of each group's, not its last.

        step_share: of each row's drawn steps that are learnt from, at random, one at least.
        interval: below 1, a group shares all noise before its last steps, and those alone are learnt: this share of
            all steps at first, every step in the last of `total` batches.
        """
        self.policy, self.reward, self.prompts, self.samples, self.seed = policy, reward, prompts, samples, seed
        self.shared_start, self.drawn, self.step_share = shared_start, drawn, step_share
        self.interval, self.total, self.given = interval, total, given
        self.known = digits(heldout=False) if given else None

    def next(self, step: int) -> Groups:
        """The batch of this step (from 0), made with weights that have seen `step` updates."""
        generator = torch.Generator().manual_seed(derive(self.seed, "rollout", step))
        policy, rows = self.policy, self.prompts * self.samples
        labels = policy.net.labels
        rounds = -(-self.prompts // labels)  # every label once before any twice
        chosen = torch.cat([torch.randperm(labels, generator=generator) for _ in range(rounds)])[:self.prompts]
        unit = torch.arange(self.prompts).repeat_interleave(self.samples)
        noise = torch.randn(rows, policy.steps + 1, policy.net.size, generator=generator)
        before = policy.steps - self._last(step)
        if self.shared_start or self.interval < 1:
            noise[:, :before + 1] = noise[::self.samples, :before + 1][unit]
        made = policy.sample(chosen[unit], noise, self._drawn(unit, generator))
        told = made.trajectories
        mask = self._learnt(made.mask & (torch.arange(policy.steps) >= before), generator)
        logp, whose = made.log_prob, torch.arange(self.prompts).repeat_interleave(self.given)
        if self.given:
            told = joined(told, self._real(chosen[whose], generator))
            unit, mask = torch.cat([unit, whose]), torch.cat([mask, mask.new_ones(len(whose), policy.steps)])
            logp = torch.cat([logp, logp.new_full((len(whose), policy.steps), torch.nan)])
        return Groups(payload=self._frozen(told, unit, generator), mask=mask, unit=unit,
                      version=torch.full(mask.shape, step), logp_behaviour=logp,
                      reward=self.reward(told.picture, told.label), finished=torch.ones(len(unit), dtype=torch.bool),
                      limit=policy.steps, extra={"given": torch.arange(len(unit)) >= rows})

    def _real(self, label: Tensor, generator: torch.Generator) -> Trajectories:
        """Real pictures of these labels; they have no steps, so nothing but the picture is told."""
        assert self.known is not None
        chances = (self.known.label == label[:, None]).float()
        picture = self.known.picture[chances.multinomial(1, generator=generator)[:, 0]]
        steps, size = self.policy.steps, self.policy.net.size
        blank = picture.new_zeros(len(label), steps, size)
        return Trajectories(blank, blank, torch.arange(steps).expand(len(label), -1), label, picture,
                            picture.new_zeros(len(label), steps), blank)

    def _last(self, step: int) -> int:
        """How many of the last steps are learnt."""
        steps = self.policy.steps
        if self.interval == 1:
            return steps
        first = max(1, round(self.interval * steps))
        return min(steps, first + step * (steps - first + 1) // self.total)

    def _frozen(self, made: Trajectories, unit: Tensor, generator: torch.Generator) -> Trajectories:
        """With draws of time, even over (0, 1) in as many strata as steps, and of noise: the same for a whole group."""
        steps, size = self.policy.steps, self.policy.net.size
        time = (torch.arange(steps) + torch.rand(self.prompts, steps, generator=generator)) / steps
        noise = torch.randn(self.prompts, steps, size, generator=generator)
        return replace(made, time=time.clamp(1e-4, 1 - 1e-4)[unit], noise=noise[unit])

    def _learnt(self, mask: Tensor, generator: torch.Generator) -> Tensor:
        """[B, S] bool: of the drawn steps, those that are learnt from."""
        if self.step_share == 1:
            return mask
        order = torch.rand(mask.shape, generator=generator).masked_fill(~mask, torch.inf).argsort(1).argsort(1)
        wanted = (mask.sum(1, keepdim=True) * self.step_share).round().clamp(min=1)
        return mask & (order < wanted)

    def _drawn(self, unit: Tensor, generator: torch.Generator) -> Tensor:
        """[B, S] bool."""
        steps = self.policy.steps
        if self.drawn == "every":
            return torch.ones(len(unit), steps, dtype=torch.bool)
        which = torch.randint(max(1, steps - 1), (self.prompts,), generator=generator)
        return torch.arange(steps) == which[unit][:, None]
