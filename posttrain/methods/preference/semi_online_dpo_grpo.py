"""Semi-online DPO: online DPO that renews its sampler only every s optimizer steps.

    π_s   = π at every s-th step                                             what all answers of s steps are sampled by
    w, l  = the answers of highest and of lowest reward in the group, sampled by π_s
    h_i   = log π(y_i) − log π_ref(y_i)                                      of whole answers
    L     = −mean log σ( β (h_w − h_l) )                                     over prompts whose rewards differ

Not a new loss but a study of its rhythm: s = 1 is fully online, s = ∞ is DPO on given pairs, and a renewal every 5 to
100 steps does nearly as well as every step, both far better than none.  One source batch is s steps' worth of prompts
from one set of weights and `minibatches` is s, so a run needs s times the prompts per batch and takes s steps on it.
The same rhythm for GRPO is `grpo` with `minibatches` = s.

Deviations: mechanism from memory and the abstract.  s is 1 until it is set.  Where rewards are 0 and 1 the authors pick
a right and a wrong answer at random, here all share one pair's weight, the mean of that.  Their periodic renewal
of the reference, and the mixing of verified with judged prompts, are left out.
"""

from posttrain.core import Count, Paper, Positive
from posttrain.methods.preference.online_dpo import OnlineDPO

PAPER = Paper("2506.21495", "Lanchantin et al., 2025", parent="online-dpo")


def semi_online_dpo_grpo(
    beta: Positive = 0.1,  # β, reward per nat; DPO's
    minibatches: Count = 1,  # s, optimizer steps between two renewals of the sampler; paper, 1, 5, 10 and 100
    epochs: Count = 1,  # passes over each batch
) -> OnlineDPO:
    return OnlineDPO(beta=beta, minibatches=minibatches, epochs=epochs)
