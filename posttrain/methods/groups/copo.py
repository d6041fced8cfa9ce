"""COPO: prompts compete with each other too, so that a prompt whose answers are all right or all wrong still teaches.

    H    = −Σ_k p_k log₂ p_k                       p_k: share of the group's G completions that give answer k
    R    = mean r · (1 − λ H),  λ = (1 − 1/G) / log₂ G
    B    = (R − mean R) / (std R + 1e-6)           over the prompts of the batch, one for all completions of a prompt
    Â_i  = (r_i − mean r) / (std r + 1e-4)         within the group of one prompt
    w    = σ( k (H − b) )
    S(A) = dual-clipped surrogate of ρ_it = π(y_it) / π_old(y_it):  min( ρ A, clip(ρ, 1 − ε, 1 + ε) A ) ≥ c A for A < 0
    L    = −mean_i 1/|y_i| Σ_t [ w S(Â_i) + (1 − w) S(B) ]

GRPO plus the term between prompts: w = 1 is GRPO.  Scattered answers are judged within their group, agreeing ones
against other prompts.  `batch.extra["answer"]` [B] long is the number of a completion's final answer within its group.

Deviations: the released code offers several blends; this one, on H alone, is its "only soft".  Its last script names
a blend that gives completions of reward 0 the term between prompts alone, and leaves the factor 1 − λ H out; both
follow the paper here.  1e-4 in Â is GRPO's, the code has 1e-6.
"""

from dataclasses import dataclass

from torch import Tensor

from posttrain import ops
from posttrain.core import Fraction, Groups, Loss, Method, Models, NonNegative, Paper, Positive


@dataclass(frozen=True, kw_only=True)
class COPO(Method[Groups]):
    paper = Paper("2508.04138", "Han et al., 2025", parent="grpo")

    steepness: NonNegative = 5.0  # k, per bit; released script
    centre: NonNegative = 1.0  # b, bits of answer entropy at which both terms weigh the same; released script
    clip_low: Fraction = 0.2  # ε_low, per token; released script
    clip_high: NonNegative = 0.2  # ε_high, per token; released script
    bound: Positive = 3.0  # c, above 1: the largest ratio that counts where the advantage is negative; released code

    def prepare(self, models: Models, batch: Groups) -> Groups:
        """reward, answer [B] -> advantage, and in `extra` blend w and between B, all [B]."""
        entropy, most = answer_bits(batch.extra["answer"], batch.group, batch.reward)
        sure = 1 - (1 - 2**-most) * entropy / most.clamp(min=1)
        worth = ops.group_mean(batch.reward, batch.group) * sure
        mean, std = ops.between_groups(worth, batch.group)
        batch = batch.replace(advantage=ops.group_normalize(batch.reward, batch.group))
        return batch.with_extra(blend=(self.steepness * (entropy - self.centre)).sigmoid(),
                                between=(worth - mean) / (std + 1e-6))

    def loss(self, models: Models, batch: Groups) -> Loss:
        ratio = batch.log_ratio(models.policy.log_prob(batch)).exp()  # [B, T]
        blend, between = (batch.extra[name][:, None].expand(ratio.shape) for name in ("blend", "between"))
        within = ops.dual_clipped_gain(ratio, batch.credit, self.clip_low, self.clip_high, self.bound)
        across = ops.dual_clipped_gain(ratio, between, self.clip_low, self.clip_high, self.bound)
        return Loss(within=batch.mean(batch.mean_per_row(-blend * within)),
                    between=batch.mean(batch.mean_per_row((blend - 1) * across))).log(ratio=batch.mean(ratio))


def answer_bits(answer: Tensor, group: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """H and log₂ G of each row's own group, [B] each, of the dtype of `like`: answer, group [B] long."""
    share = ops.group_share(answer, group)
    return ops.group_mean(-share.log2(), group).to(like.dtype), ops.group_size(group).to(like.dtype).log2()
