"""What off-policy methods learn from in control: a replay that the policy's own acting fills."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from posttrain.core import Transitions
from posttrain.core.seeds import derive
from posttrain.data.replay.uniform import Replay
from posttrain.data.steps import Spaces
from posttrain.policies.acting import ControlPolicy
from posttrain.rollout.environments import Environments

Act = Callable[[Tensor, Tensor], Tensor]


class Exploration(NamedTuple):
    """How acting differs from what the policy would do."""

    random_steps: int  # random actions before the first batch
    noise: float  # standard deviation of what is added to actions in [−1, 1]
    start: float  # share of random actions in round 0
    end: float  # that share from round `rounds` on
    rounds: int
    policy_steps: int = 0  # actions of the policy itself after the random ones, still before the first batch

    def epsilon(self, step: int) -> float:
        """The share of random actions in round `step`, which falls linearly."""
        return self.end if step >= self.rounds else self.start + (self.end - self.start) * step / self.rounds


class Drift:
    """Noise of deviation 1 that keeps a share of itself: x ← ρ x + √(1 − ρ²) ε, from 0 where an episode begins.

    An Ornstein-Uhlenbeck process in steps of an action; ρ is 0.85 in Lillicrap et al. 2015 (1509.02971), section 7.
    """

    def __init__(self, keep: float) -> None:
        """keep: ρ in [0, 1)."""
        self.keep, self.noise = keep, torch.zeros(0)

    def next(self, fresh: Tensor) -> Tensor:
        """x [N, A], from ε [N, A]; ε itself where nothing is kept."""
        if not self.keep:
            return fresh
        before = self.noise if len(self.noise) else torch.zeros_like(fresh)
        self.noise = self.keep * before + math.sqrt(1 - self.keep**2) * fresh
        return self.noise

    def forget(self, ended: Tensor) -> None:
        """These of N episodes, [N] bool, begin anew."""
        if len(self.noise):
            self.noise[ended] = 0


class ReplaySource:
    """One step of every environment before each `ratio` draws from the replay."""

    def __init__(self, envs: Environments, policy: ControlPolicy, replay: Replay, batch: int, noises: int,
                 exploration: Exploration, ratio: int, seed: int, act: Act | None = None,
                 candidates: int = 1, drift: Drift | None = None) -> None:
        """act: what is done on observations [N, obs] with the policy's noise [N, candidates, A]; else its sample.

        drift: what becomes of the noise that is added to actions; None: it is new in each.
        """
        self.act, self.candidates, self.drift = act or self._sampled, candidates, drift or Drift(0.0)
        self.envs, self.policy, self.replay, self.seed = envs, policy, replay, seed
        self.batch, self.noises, self.exploration, self.ratio = batch, noises, exploration, ratio

    def next(self, step: int) -> Transitions:
        """The draw of round `step` (from 0); before the first, the replay is filled by chance, then by the policy."""
        by_chance = self.exploration.random_steps
        while self.replay.count < by_chance + self.exploration.policy_steps:
            generator = torch.Generator().manual_seed(derive(self.seed, "random", self.replay.count))
            self._act(self._random(generator) if self.replay.count < by_chance else self._explore(0.0, generator))
        generator = torch.Generator().manual_seed(derive(self.seed, "rollout", step))
        if step % self.ratio == 0:
            self._act(self._explore(self.exploration.epsilon(step), generator))
        return self.replay.draw(self.batch, self.noises, generator)

    def _act(self, action: Tensor) -> None:
        obs = self.envs.obs
        found = self.envs.step(action)
        ended = found.terminated | found.truncated
        self.replay.add(obs=obs, action=action, reward=found.reward, next_obs=found.next_obs,
                        terminated=found.terminated, ended=ended, achieved=found.achieved)
        self.drift.forget(ended)

    def _sampled(self, obs: Tensor, noise: Tensor) -> Tensor:
        return self.policy.enacted(obs, self.policy.sample(obs, noise[:, 0]).action)

    def _random(self, generator: torch.Generator) -> Tensor:
        return random_actions(self.envs.spaces, len(self.envs.envs), generator)

    def _explore(self, epsilon: float, generator: torch.Generator) -> Tensor:
        draw = self.policy.noise((len(self.envs.envs), self.candidates), generator)
        with torch.no_grad():
            action = self.act(self.envs.obs, draw)
        if self.exploration.noise:
            action = (action + self.exploration.noise * self.drift.next(draw[:, 0])).clamp(-1, 1)
        if epsilon:
            random = torch.rand(len(action), generator=generator) < epsilon
            action = torch.where(random if action.dim() == 1 else random[:, None], self._random(generator), action)
        return action


def random_actions(spaces: Spaces, count: int, generator: torch.Generator) -> Tensor:
    """Even over all actions."""
    if spaces.numbered:
        return torch.randint(spaces.action, (count,), generator=generator)
    return 2 * torch.rand(count, spaces.action, generator=generator) - 1
