"""PORL: fine-tuning of a policy alone: a new Q first learns what that policy is worth, then both go on.

    replay ← K actions of the loaded π, nothing being learnt                   (the option policy_steps)
    L_Q of WSRL for n updates, π and α as they are; then L_Q, L_π and L_α of WSRL

Only π is taken of what --start-from names (the option start_networks), so it may come from behaviour cloning, which has
no Q, and no Q is taken that logged data made pessimistic of what it does not hold.  A Q that has learnt nothing would
ruin π at once; n updates on what π itself does give it the right order first.  n = 0 is WSRL with a new Q.

Deviations: written after the paper's description of its two stages and without its code: Q as in WSRL, K and n are
ours.  Acting goes on while Q learns alone, by the same π.
"""

from collections.abc import Collection
from dataclasses import dataclass

from posttrain.core import Models, Natural, Paper, by_kind
from posttrain.methods.offline.wsrl import WSRL


@dataclass(frozen=True, kw_only=True)
class PORL(WSRL):
    paper = Paper("2505.16856", "Xiao et al., 2025", parent="sac")
    continues = True
    defaults = by_kind(control={**WSRL.defaults["control"], "start_networks": ("policy",)})

    critic_updates: Natural = 5000  # n, of Q alone; ours

    def moves(self, models: Models) -> Collection[str]:
        return ("q",) if models.state["updates"] < self.critic_updates else super().moves(models)
