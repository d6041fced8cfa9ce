"""Ensemble C51: several learners of the law of returns, each taught by the law of all of them together.

    p̄(s', a') = 1/K Σ_k p̄_k(s', a'),    a* = argmax_a' Σ_i z_i p̄_i(s', a')
    m         = Π ( r + γⁿ (1 − d) z ),  with the probabilities p̄(s', a*)
    L         = −mean w Σ_k Σ_i m_i log p_k,i(s, a)

The rest is C51's; K = 1 is C51.  Acts by the mean of the K learners.

Deviations: all learners are taught on one batch, of one replay, where the paper's each have their own; they differ by
what they were at first.
"""

from dataclasses import dataclass

from posttrain.core import Count, Paper
from posttrain.methods.off_policy.c51 import C51


@dataclass(frozen=True, kw_only=True)
class EnsembleC51(C51):
    paper = Paper("2003.10903", "Lindenberg, Nordqvist & Lindahl, 2020", parent="c51")

    members: Count = 5  # K, learners; our choice, the paper varies it
