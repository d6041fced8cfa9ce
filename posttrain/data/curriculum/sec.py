"""SEC: the parts of a task are arms of a bandit, and what an arm pays is how large its answers' advantages were.

    p(c)  = exp(Q(c) / τ) / Σ_c' exp(Q(c') / τ)
    r(c)  = mean |Â| over the step's answers to problems of c
    Q(c) ← Q(c) + α (r(c) − Q(c))                       for every c that was drawn; Q = 0 before the first step

|Â| stands for what a part still has to teach: for right-or-wrong rewards less their mean its expectation is
2 p (1 − p), largest where half of the answers are right.  TD(0) without a next state is an exponential average, so the
bandit follows a policy that changes.

Deviations: none in the equations.  The paper sets α and τ for each of its domains; the defaults are ours.  A method
that sets no advantage is taken to have r − mean r.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.core import Arm, Curriculum, Fraction, Outcome, Paper, Positive, State


@dataclass(frozen=True, kw_only=True)
class SEC(Curriculum):
    paper = Paper("2505.14970", "Chen et al., 2025")

    arm_rate: Fraction = 0.5  # α, of the average of payoffs; ours, the paper's differs by domain
    arm_temperature: Positive = 0.5  # τ, in units of |Â|; ours, the paper's differs by domain

    def probabilities(self, state: State, arms: Sequence[Arm]) -> list[float]:
        exponents = [state.get(arm.name, 0.0) / self.arm_temperature for arm in arms]
        weights = [math.exp(x - max(exponents)) for x in exponents]
        return [w / sum(weights) for w in weights]

    def learn(self, state: State, outcomes: Sequence[Outcome]) -> None:
        """Q of every part that was drawn moves towards its payoff; state: name -> Q."""
        paid: dict[str, list[float]] = {}
        for outcome in outcomes:
            paid.setdefault(outcome.arm.name, []).extend(outcome.advantages)
        for name, advantages in paid.items():
            if advantages:
                payoff, before = sum(advantages) / len(advantages), state.get(name, 0.0)
                state[name] = before + self.arm_rate * (payoff - before)
