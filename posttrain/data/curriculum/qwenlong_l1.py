"""QwenLong-L1: prompts grow longer in phases, and hard ones of the phases before come back.

    phase k holds  D_k = { x : L_{k−1} < |x| ≤ L_k },  k = 1, 2,  L_0 = 0
    diff(x) = 1 / mean r(x)                                           r(x) the rewards of x when last drawn
    phase 2 draws from D_2 evenly, and a share ρ from D_1 with chance ∝ diff(x)

A policy that reads short contexts well is led to longer ones, and the retrospective share keeps what it still fails at,
which also keeps it exploring.

Deviations: the paper's equation was not at hand; 1 / mean reward and the two phases are as remembered of it, and ρ and
the length of a phase in steps are ours.  A mean of 0 counts as a floor, so that never solved prompts do not take all.
Prompts of phase 1 that were never drawn do not come back.  The warm-up on demonstrations is a run of its own, and the
reward, the larger of a rule's and a judge's, is the task's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.core import Arm, Count, Fraction, Outcome, Paper, Positive, ProblemCurriculum, State
from posttrain.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class QwenLongL1(ProblemCurriculum):
    paper = Paper("2505.17667", "Wan et al., 2025")
    reads_lengths = True

    phase_lengths: tuple[float, float] = (20000, 60000)  # L_1 and L_2, tokens of a prompt; paper
    phase_steps: Count = 100  # steps of phase 1; ours
    retrospective_share: Fraction = 0.5  # ρ, of the prompts of phase 2; ours
    least_reward: Positive = 0.125  # what a mean of less counts as; ours, one right answer of a group of 8

    def initial_state(self, arms: Sequence[Arm]) -> State:
        """Steps so far, and name -> mean reward."""
        first, last = self.phase_lengths
        lengths = [arm.length for arm in arms]
        beyond = sum(n > last for n in lengths)
        if not first < last or beyond or not min(lengths) <= first < max(lengths):
            raise UserError(f"phase_lengths = {first:g},{last:g}: prompts have {min(lengths)} to {max(lengths)} "
                            "tokens, and each phase must hold some, the second the longest")
        return {"steps": 0, "reward": {}}

    def probabilities(self, state: State, arms: Sequence[Arm]) -> list[float]:
        short = [arm.length <= self.phase_lengths[0] for arm in arms]
        if state["steps"] < self.phase_steps:
            return [s / sum(short) for s in short]
        rewards = state["reward"]
        hard = [1 / max(rewards[arm.name], self.least_reward) if s and arm.name in rewards else 0.0
                for arm, s in zip(arms, short, strict=True)]
        share = self.retrospective_share if any(hard) else 0.0
        long = len(arms) - sum(short)
        return [share * h / (sum(hard) or 1) + (1 - share) * (not s) / long for h, s in zip(hard, short, strict=True)]

    def learn(self, state: State, outcomes: Sequence[Outcome]) -> None:
        state["steps"] += 1
        for outcome in outcomes:
            if outcome.rewards:
                state["reward"][outcome.arm.name] = sum(outcome.rewards) / len(outcome.rewards)
