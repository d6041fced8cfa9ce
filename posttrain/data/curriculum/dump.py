"""DUMP: upper confidence bounds decide which part of a task is learnt from, by its advantages of late.

    L(d)   = mean of the last k |Â| of part d
    UCB(d) = L(d) + sqrt( 2 ln(N + 1) / (n(d) + 1) )                 n(d) answers to d so far, N = Σ_d n(d)
    p(d)   = exp(UCB(d) / τ) / Σ_d' exp(UCB(d') / τ)

SEC's payoff, with a window in place of its average, and a bonus for what was seldom drawn.  As n(d) → ∞ the bonus
vanishes and p is the softmax of L / τ.

Deviations: the authors' code also appends the mean reward of each validation pass to the window, as if it were an
advantage; that is left out.  It takes N to be at least 1, which changes nothing after the first step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.core import Arm, Count, Curriculum, Outcome, Paper, Positive, State


@dataclass(frozen=True, kw_only=True)
class DUMP(Curriculum):
    paper = Paper("2504.09710", "Wang et al., 2025", parent="sec")

    learnability_window: Count = 300  # k, answers; authors' code
    ucb_temperature: Positive = 0.1  # τ, in units of |Â|; authors' code

    def initial_state(self, arms: Sequence[Arm]) -> State:
        """Of each part the last |Â|, and how many answers there were."""
        return {"recent": {arm.name: [] for arm in arms}, "answers": {arm.name: 0 for arm in arms}}

    def probabilities(self, state: State, arms: Sequence[Arm]) -> list[float]:
        counts, total = state["answers"], sum(state["answers"].values())
        bounds = []
        for arm in arms:
            recent = state["recent"][arm.name]
            learnable = sum(recent) / max(1, len(recent))
            bounds.append(learnable + math.sqrt(2 * math.log(total + 1) / (counts[arm.name] + 1)))
        weights = [math.exp((bound - max(bounds)) / self.ucb_temperature) for bound in bounds]
        return [w / sum(weights) for w in weights]

    def learn(self, state: State, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            name = outcome.arm.name
            state["recent"][name] = [*state["recent"][name], *outcome.advantages][-self.learnability_window:]
            state["answers"][name] += len(outcome.advantages)
