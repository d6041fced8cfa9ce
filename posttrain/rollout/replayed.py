"""What off-policy methods learn from in control: a replay that the policy's own acting fills."""

from __future__ import annotations

import torch
from torch import Tensor

from posttrain.core import Transitions
from posttrain.core.seeds import derive
from posttrain.data.replay.uniform import Replay
from posttrain.data.steps import Spaces
from posttrain.policies.control import ControlPolicy
from posttrain.rollout.environments import Environments
from posttrain.rollout.segments import noise


class ReplaySource:
    """One step of every environment, then a draw from the replay; the first `random_steps` actions are random."""

    def __init__(self, envs: Environments, policy: ControlPolicy, replay: Replay, batch: int, noises: int,
                 random_steps: int, exploration: float, seed: int) -> None:
        """exploration: standard deviation of what is added to a deterministic policy's actions."""
        self.envs, self.policy, self.replay, self.seed = envs, policy, replay, seed
        self.batch, self.noises, self.random_steps, self.exploration = batch, noises, random_steps, exploration

    def next(self, step: int) -> Transitions:
        """The draw of round `step` (from 0); before the first, the replay is filled with random actions."""
        while self.replay.count < self.random_steps:
            generator = torch.Generator().manual_seed(derive(self.seed, "random", self.replay.count))
            self._act(self._random(generator))
        generator = torch.Generator().manual_seed(derive(self.seed, "rollout", step))
        self._act(self._explore(generator))
        return self.replay.draw(self.batch, self.noises, generator)

    def _act(self, action: Tensor) -> None:
        obs = self.envs.obs
        found = self.envs.step(action)
        self.replay.add(obs=obs, action=action, reward=found.reward, next_obs=found.next_obs,
                        terminated=found.terminated)

    def _random(self, generator: torch.Generator) -> Tensor:
        return random_actions(self.envs.spaces, len(self.envs.envs), generator)

    def _explore(self, generator: torch.Generator) -> Tensor:
        draw = noise(self.policy, (len(self.envs.envs),), generator)
        with torch.no_grad():
            action = self.policy.sample(self.envs.obs, draw).action
        return (action + self.exploration * draw).clamp(-1, 1) if self.exploration else action


def random_actions(spaces: Spaces, count: int, generator: torch.Generator) -> Tensor:
    """Even over all actions."""
    if spaces.numbered:
        return torch.randint(spaces.action, (count,), generator=generator)
    return 2 * torch.rand(count, spaces.action, generator=generator) - 1
