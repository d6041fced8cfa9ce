"""Knapsack-RL: a step's answers are shared out so that the value of all its groups together is the largest.

    V(N, p) = [ 1 − p^N − (1 − p)^N ] · p (1 − p)²                   p the mean reward of the prompt when last drawn
    max Σ_i V(N_i, p_i)   over whole N_i in [N_low, N_high] with Σ_i N_i = B G           0 < p_i < 1

The bracket is the chance that N answers are not all alike, and p (1 − p)² is what a gradient step then adds to p, to
first order.  Prompts always or never solved get N_low; B prompts and G answers each are the budget.  Where
N_i = ln(1 − c) / ln max(p_i, 1 − p_i) answers, enough for a signal with probability c, leave something over, it goes to
the prompts that were never solved, else to those always solved.

Deviations: V is concave in N, since V(N + 1) − V(N) ∝ p^N (1 − p) + (1 − p)^N p falls with N, so taking the best next
answer each time is optimal and stands for the authors' dynamic program.  A prompt not yet drawn gets G, as theirs do.
Prompts are drawn evenly, each at most once a step, not epoch by epoch.  Their code counts the N_low that a prompt has
already not towards what is enough for it; here it does.  N_high is as remembered of the paper.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from posttrain.core import Arm, Count, Fraction, Outcome, Paper, ProblemCurriculum, State


@dataclass(frozen=True, kw_only=True)
class KnapsackRL(ProblemCurriculum):
    paper = Paper("2509.25849", "Li et al., 2025")

    fewest_answers: Count = 2  # N_low; authors' code
    most_answers: Count = 128  # N_high; remembered of the paper, the code's default is not a number
    signal_chance: Fraction = 0.9  # c; authors' code

    def probabilities(self, state: State, arms: Sequence[Arm]) -> list[float]:
        return [1 / len(arms)] * len(arms)

    def draw(self, state: State, arms: Sequence[Arm], prompts: int, rng: Random) -> list[Arm]:
        return rng.sample(arms, prompts) if prompts <= len(arms) else rng.choices(arms, k=prompts)

    def budgets(self, state: State, drawn: Sequence[Arm], samples: int) -> list[int]:
        low, high = min(self.fewest_answers, samples), max(self.most_answers, samples)
        rates = [state.get(arm.name) for arm in drawn]
        budget = [samples if p is None else low for p in rates]
        mixed = {i: p for i, p in enumerate(rates) if p is not None and 0 < p < 1}
        others = [i for i, p in enumerate(rates) if p == 0] or [i for i, p in enumerate(rates) if p == 1]
        spare = samples * len(drawn) - sum(budget)
        wanted = sum(max(0, min(high, self._enough(p)) - low) for p in mixed.values())
        surplus = max(0, spare - wanted) if others else 0
        for k in range(surplus):
            budget[others[k % len(others)]] += 1
        for _ in range(spare - surplus):
            room = [i for i in mixed if budget[i] < high]
            best = max(room, key=lambda i: value(budget[i] + 1, mixed[i]) - value(budget[i], mixed[i]))
            budget[best] += 1
        return budget

    def _enough(self, p: float) -> int:
        """Answers that differ with probability c."""
        return math.floor(math.log(max(1 - self.signal_chance, 1e-300)) / math.log(max(p, 1 - p)))

    def learn(self, state: State, outcomes: Sequence[Outcome]) -> None:
        """state: name -> mean reward."""
        for outcome in outcomes:
            if outcome.rewards:
                state[outcome.arm.name] = sum(outcome.rewards) / len(outcome.rewards)


def value(n: int, p: float) -> float:
    """V(n, p)."""
    return (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2
