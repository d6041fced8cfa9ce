"""Semi-online DPO: how many steps are taken between two renewals of the sampler."""

from __future__ import annotations

import torch
from toy import Learner, TablePolicy, table_groups
from worked import close, learn

from posttrain.methods.preference.online_dpo import OnlineDPO
from posttrain.methods.preference.semi_online_dpo_grpo import semi_online_dpo_grpo

BATCH = table_groups([1.0, 0.0] * 4, [[1, 1]] * 8, group=[0, 0, 1, 1, 2, 2, 3, 3])
LOGP, REF = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_renewed_at_every_step_is_online_dpo() -> None:
    found = learn(semi_online_dpo_grpo(beta=0.3), BATCH, LOGP, REF)[2]
    close(found, learn(OnlineDPO(beta=0.3), BATCH, LOGP, REF)[2])


def test_s_steps_share_one_sampler() -> None:
    # s = 4 over four prompts: each is learnt from once, in a step of its own, whose mean is over its one pair: four
    # times what it has in the mean over all.  The answers and their pairs are those of one sampler throughout.
    made = Learner(semi_online_dpo_grpo(minibatches=4), TablePolicy(LOGP), TablePolicy(REF))
    made.update(BATCH, lr=0.0)
    assert len(made.gradients) == 4
    close(sum(made.gradients).view(8, 2), 4 * learn(OnlineDPO(), BATCH, LOGP, REF)[2])


def test_later_steps_are_taken_from_where_the_earlier_ones_led() -> None:
    # Two steps on one prompt: the second's gradient is the loss's at the weights which one online step leaves.
    batch = BATCH.take(torch.tensor([0, 1]))
    once = Learner(semi_online_dpo_grpo(), TablePolicy(LOGP), TablePolicy(REF))
    twice = Learner(semi_online_dpo_grpo(epochs=2), TablePolicy(LOGP), TablePolicy(REF))
    once.update(batch, lr=0.05)
    twice.update(batch, lr=0.05)
    moved = once.models.policy.module[0].detach()
    assert not torch.equal(moved, LOGP)
    close(twice.gradients[1].view(8, 2), learn(OnlineDPO(), batch, moved, REF)[2])
