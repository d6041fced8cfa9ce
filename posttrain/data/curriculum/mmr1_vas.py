"""MMR1-VAS: a share of each step's prompts is drawn by how much their rewards varied, the rest evenly.

    OVS_i = p_i (1 − p_i)                                             p_i the mean reward of prompt i when last drawn
    TDS_i = share of different word trigrams among those of its answers
    VPS_i = a OVS_i + b TDS_i
    a step of B prompts: ⌊λ B⌋ with chance ∝ VPS_i, with replacement; the others evenly, each at most once

The variance of rewards bounds the gradient of a group from below, so prompts that keep it are asked again, and the
even share keeps sight of all others.  λ = 0 is plain sampling.

Deviations: the authors score every prompt with answers drawn for that purpose, anew every few steps; here the answers
that are trained on are the estimate, and a prompt not yet drawn counts as the mean of those that were.  They offer
several measures of diversity, and the configuration that they released uses none; trigrams are one of theirs, and
b = 0 is theirs too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from posttrain.core import Arm, Fraction, NonNegative, Outcome, Paper, ProblemCurriculum, State

WORDS = 3  # that make a trigram


@dataclass(frozen=True, kw_only=True)
class MMR1VAS(ProblemCurriculum):
    paper = Paper("2509.21268", "Leng et al., 2025")

    varied_share: Fraction = 0.5  # λ, of a step's prompts; authors' configuration
    outcome_weight: NonNegative = 1.0  # a; authors' configuration
    diversity_weight: NonNegative = 0.0  # b; authors' configuration

    def probabilities(self, state: State, arms: Sequence[Arm]) -> list[float]:
        """Of one prompt in expectation, as if λ B were whole."""
        return [self.varied_share * v + (1 - self.varied_share) / len(arms) for v in self._varied(state, arms)]

    def draw(self, state: State, arms: Sequence[Arm], prompts: int, rng: Random) -> list[Arm]:
        varied = math.floor(self.varied_share * prompts)
        chosen = rng.choices(arms, self._varied(state, arms), k=varied)
        rest = prompts - varied
        return chosen + (rng.sample(arms, rest) if rest <= len(arms) else rng.choices(arms, k=rest))

    def _varied(self, state: State, arms: Sequence[Arm]) -> list[float]:
        """VPS of each prompt as a share of all; even where every score is 0."""
        scores = [self.outcome_weight * variance + self.diversity_weight * diversity
                  for variance, diversity in state.values()]
        unseen = sum(scores) / max(1, len(scores))
        known = dict(zip(state, scores, strict=True))
        weights = [known.get(arm.name, unseen) for arm in arms]
        total = sum(weights)
        return [w / total if total else 1 / len(arms) for w in weights]

    def learn(self, state: State, outcomes: Sequence[Outcome]) -> None:
        """state: name -> (OVS, TDS)."""
        for outcome in outcomes:
            if outcome.rewards:
                mean = sum(outcome.rewards) / len(outcome.rewards)
                state[outcome.arm.name] = [mean * (1 - mean), distinct(outcome.texts)]


def distinct(texts: Sequence[str]) -> float:
    """Different trigrams of words as a share of all; 0 where no text has three words."""
    words = [text.split() for text in texts]
    found = [tuple(w[i:i + WORDS]) for w in words for i in range(len(w) - WORDS + 1)]
    return len(set(found)) / max(1, len(found))
