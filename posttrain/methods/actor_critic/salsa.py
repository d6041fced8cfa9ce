"""SALSA: hold PPO near the average of two fine-tuned models instead of the one that it starts from.

    θ_soup = α θ_0 + (1 − α) θ_1                      θ_0 where training starts, θ_1 the teacher
    r_it = [t is the last] r_i − β ( log π_old(y_it) − log π_soup(y_it) )
    δ_it = r_it + γ V_old(s_i,t+1) − V_old(s_it),   V_old = 0 after the last decision
    G_it = Σ_l (γ λ)^l δ_i,t+l,   R_it = G_it + V_old(s_it)
    Â_it = (G_it − mean G) / (std G + 1e-8)                         over every decision of the batch
    ρ_it = π(y_it) / π_old(y_it)
    L_V  = ½ mean_it max( (V_it − R_it)², (clip(V_it, V_old ± ε_V) − R_it)² )
    L    = −mean_it min( ρ_it Â_it, clip(ρ_it, 1 − ε_low, 1 + ε_high) Â_it ) + L_V

Two models tuned from one base apart from each other lie in one basin, and their average scores higher than either: a
reference in the middle of a good region lets the policy go further for the same β.  Everything else is PPO's.

Deviations: the second model is the run's teacher, of the policy's own architecture, and nothing is learnt from it
otherwise.  The soup is made at the first batch, in fp32.  PPO's settings are not the paper's.
"""

from dataclasses import dataclass

from posttrain import ops
from posttrain.core import Fraction, Groups, Models, Paper
from posttrain.core.errors import UserError
from posttrain.methods.actor_critic.ppo import PPO


@dataclass(frozen=True, kw_only=True)
class SALSA(PPO):
    paper = Paper("2411.01798", "Chegini et al., 2024", parent="ppo")

    share: Fraction = 0.5  # α, of the initial policy; paper

    @property
    def needs(self) -> tuple[str, ...]:
        return ("policy", "anchor", "teacher", "critic") if self.kl_coef else ("policy", "critic")

    def initial_state(self) -> dict[str, float]:
        return {"soups": 0.0}

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """PPO's credit, the soup in the reference's place: reward [B] -> advantage, value and its target [B, T]."""
        if not self.kl_coef:
            return super().prepare(models, batch)
        if not models.state["soups"]:
            stir(models, self.share)
            models.state["soups"] = 1.0
        soup = Models(policy=models.policy, reference=models.anchor, critic=models.critic)
        return super().prepare(soup, batch)


def stir(models: Models, share: float) -> None:
    """Make the anchor α θ_0 + (1 − α) θ_1, which is θ_0 until now.

    Raises:
        UserError: where the teacher's weights are not of the policy's shapes.
    """
    ours, theirs = ([p.shape for p in m.module.parameters()] for m in (models.anchor, models.teacher))
    if ours != theirs:
        raise UserError("teacher: has another architecture than the policy, so there is no average of their weights")
    ops.follow_(models.anchor.module, models.teacher.module, 1 - share)
