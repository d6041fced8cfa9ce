"""The contract: batches, losses, methods and what they may ask of a policy.

Names are imported when first used: the catalogue and the errors live here too, and must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posttrain.core.batch import Batch, Groups, Payload, Transitions, every
    from posttrain.core.curriculum import Arm, Curriculum, EpisodeCurriculum, Outcome, ProblemCurriculum, State
    from posttrain.core.loss import Loss, Term
    from posttrain.core.method import Method, Net, Paper, by_kind
    from posttrain.core.policy import Critic, Models, Policy, Score, compare, kl_from
    from posttrain.core.step import Rule, Step
    from posttrain.core.types import AtLeastOne, Count, Fraction, Natural, NonNegative, Positive

__all__ = ["Arm", "AtLeastOne", "Batch", "Count", "Critic", "Curriculum", "EpisodeCurriculum", "Fraction", "Groups",
           "Loss", "Method", "Models", "Natural", "Net", "NonNegative", "Outcome", "Paper", "Payload", "Policy",
           "Positive", "ProblemCurriculum", "Rule", "Score", "State", "Step", "Term", "Transitions", "by_kind",
           "compare", "every", "kl_from"]

_NAMES = {
    "batch": ("Batch", "Groups", "Payload", "Transitions", "every"), "loss": ("Loss", "Term"),
    "curriculum": ("Arm", "Curriculum", "EpisodeCurriculum", "Outcome", "ProblemCurriculum", "State"),
    "method": ("Method", "Net", "Paper", "by_kind"),
    "policy": ("Critic", "Models", "Policy", "Score", "compare", "kl_from"), "step": ("Rule", "Step"),
    "types": ("AtLeastOne", "Count", "Fraction", "Natural", "NonNegative", "Positive"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
