"""DRA-GRPO's sharing of rewards, worked by hand."""

from __future__ import annotations

import math

import torch
from toy import table_groups
from worked import close, f64, learn, ln

from posttrain.methods.groups.dra_grpo import DRAGRPO, crowding
from posttrain.methods.groups.grpo import GRPO


def test_crowding() -> None:
    # Counts (1, 1, 0), (0, 1, 1) and, as order does not matter, (1, 1, 0): cosines ½ and 1.  A masked token, a 7, is
    # not counted; group 1's row is alone, and so is a row without tokens.
    token = torch.tensor([[1, 2, 7], [2, 3, 7], [2, 1, 7], [1, 2, 7], [7, 7, 7]])
    mask = torch.tensor([[1, 1, 0]] * 4 + [[0, 0, 0]], dtype=torch.bool)
    close(crowding(token, mask, torch.tensor([0, 0, 0, 1, 0])), [2.5, 2, 2.5, 1, 1])
    # (2, 1) and (1, 0): the cosine is 2 / √5.
    token = torch.tensor([[1, 1, 2], [1, 0, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    close(crowding(token, mask, torch.tensor([0, 0])), [1 + 2 / math.sqrt(5)] * 2)


def test_duplicates_share_what_one_of_a_kind_keeps() -> None:
    # Rows 0 and 1 are one answer: w r = ½, ½, 1, 0.  Mean ½, squared deviations 0, 0, ¼, ¼ over 3: std 1/√6.
    batch = table_groups([1, 1, 1, 0], [[1]] * 4, token=torch.tensor([[5], [5], [6], [7]]))
    _, prepared, gradient = learn(DRAGRPO(), batch, ln([[0.5]] * 4))
    close(prepared.extra["rarity"], [0.5, 0.5, 1, 1])
    credit = f64([0, 0, 0.5, -0.5]) / (math.sqrt(1 / 6) + 1e-4)
    close(prepared.credit[:, 0], credit)
    close(gradient[:, 0], -credit / 4)


def test_all_different_is_grpo() -> None:
    batch = table_groups([0, 1, 0.3], [[1, 1], [1, 0], [1, 1]], token=torch.arange(6).view(3, 2))
    logp = ln([[0.5, 0.1]] * 3)
    close(learn(DRAGRPO(), batch, logp)[2], learn(GRPO(kl_coef=0), batch, logp)[2])


def test_all_alike_is_grpo_on_rewards_shared_by_all() -> None:
    # w = ¼ for everyone: the advantage is GRPO's, but for what 1e-4 adds to a spread four times smaller.
    alike = table_groups([0, 1, 0.3, 0], [[1, 1]] * 4)
    shared = table_groups([0, 0.25, 0.075, 0], [[1, 1]] * 4)
    logp = ln([[0.5, 0.1]] * 4)
    close(learn(DRAGRPO(), alike, logp)[2], learn(GRPO(kl_coef=0), shared, logp)[2])
