"""Transitions that a model of logged stretches makes up, to be learnt from beside those that are logged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from posttrain.core import Transitions
from posttrain.core.seeds import derive
from posttrain.data.replay.uniform import Replay
from posttrain.policies.stretches import Guide, StretchModel


class SyntheticSource:
    """Draws from `count` stretches, all of which are made anew before every `every`-th draw."""

    def __init__(self, model: StretchModel, batch: int, noises: int, count: int, every: int, passes: int, seed: int,
                 guide: Guide | None = None) -> None:
        """guide: the model's sampler's, but for the first stretches, which are as those that are logged."""
        self.model, self.batch, self.noises, self.count, self.every = model, batch, noises, count, every
        self.passes, self.seed, self.guide = passes, seed, guide
        self.replay = Replay(model.spaces, count * model.steps)

    def next(self, step: int) -> Transitions:
        """The draw of round `step` (from 0)."""
        if step % self.every == 0:
            self._make(step)
        generator = torch.Generator().manual_seed(derive(self.seed, "synthetic", step))
        return self.replay.draw(self.batch, self.noises, generator)

    def _make(self, step: int) -> None:
        generator = torch.Generator().manual_seed(derive(self.seed, "made up", step))
        made = self.model.read(self.model.sample(self.count, self.passes, generator, self.guide if step else None))
        self.replay.add(**{name: x.flatten(0, 1) for name, x in made._asdict().items()})

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return self.replay.tensors()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore `tensors()`."""
        self.replay.load(tensors)
