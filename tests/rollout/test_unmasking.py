"""Sampling by unmasking, on networks whose predictions are known."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from posttrain.core.errors import UserError
from posttrain.rollout.engine import Sampling
from posttrain.rollout.unmasking import Order, Unmasking, UnmaskingEngine, lay_out

MASK_TOKEN, VOCABULARY = 5, 6


class Table:
    """Logits of each place of a canvas after a prompt of two tokens, whatever stands around it."""

    def __init__(self, logits: list[list[float]], follows: bool = False) -> None:
        """follows: places after the first repeat what stands before them, with certainty, once that is known."""
        self.mask_token, self.context, self.vocabulary = MASK_TOKEN, 16, VOCABULARY
        self.table, self.follows, self.texts = torch.tensor(logits), follows, list[list[int]]()
        self.module = nn.Module()

    def logits(self, ids: Tensor, present: Tensor, row: Tensor, column: Tensor) -> Tensor:
        self.texts.append(ids[0].tolist())
        found = torch.full((len(row), VOCABULARY), -1e30)
        found[:, :5] = self.table[column - 2]
        before = ids[row, column - 1]
        known = (column > 2) & (before != MASK_TOKEN)
        if self.follows:
            found[known] = -1e30
            found[known, before[known]] = 0.0
        return found


def engine(net: Table, order: Order = "confidence", per_pass: int = 1, block: int = 0) -> UnmaskingEngine:
    return UnmaskingEngine(net, Unmasking(order=order, per_pass=per_pass, block=block),
                           lambda ids: "".join(map(str, ids)))


SHARP = [[0.0, 4, 0, 0, 0], [0, 0, 9, 0, 0], [0, 0, 0, 6, 0], [7, 0, 0, 0, 0]]  # the likeliest: 1, 2, 3, 0


def greedy(net: Table, **options: int) -> tuple[list[int], list[int]]:
    out = engine(net, **options).generate([[3, 4]], 1, Sampling(max_new_tokens=4, temperature=0.0), torch.Generator())  # type: ignore[arg-type]
    assert out.when is not None
    return out.tokens[0].tolist(), out.when[0].tolist()


def test_the_most_confident_token_is_decided_first() -> None:
    assert greedy(Table(SHARP)) == ([1, 2, 3, 0], [3, 0, 2, 1])
    assert greedy(Table(SHARP), per_pass=2) == ([1, 2, 3, 0], [1, 0, 1, 0])
    assert greedy(Table(SHARP), per_pass=3) == ([1, 2, 3, 0], [1, 0, 0, 0])


def test_blocks_are_filled_one_after_another() -> None:
    assert greedy(Table(SHARP), block=2) == ([1, 2, 3, 0], [1, 0, 3, 2])
    assert greedy(Table(SHARP), block=3, per_pass=2) == ([1, 2, 3, 0], [1, 0, 0, 2])


def test_each_pass_sees_what_was_decided_before() -> None:
    net = Table(SHARP)
    greedy(net)
    m = MASK_TOKEN
    assert net.texts == [[3, 4, m, m, m, m], [3, 4, m, 2, m, m], [3, 4, m, 2, m, 0], [3, 4, m, 2, 3, 0]]


def test_from_left_to_right_it_is_an_autoregressive_sampler() -> None:
    # The first token is drawn at log 1:2:3 of tokens 1, 2, 3; the others repeat it with probability 1.
    net = Table([[-1e30, 0.0, math.log(2), math.log(3), -1e30]] * 3, follows=True)
    out = engine(net, "left").generate([[3, 4]], 3000, Sampling(max_new_tokens=3), torch.Generator().manual_seed(0))
    assert (out.tokens == out.tokens[:, :1]).all()
    assert out.when is not None
    assert out.when.unique(dim=0).tolist() == [[0, 1, 2]]
    shares = Counter(out.tokens[:, 0].tolist())
    for token, share in ((1, 1 / 6), (2, 2 / 6), (3, 3 / 6)):
        assert shares[token] / 3000 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 3000))
    assert torch.allclose(out.logp[:, 0], (out.tokens[:, 0] / 6).log(), atol=1e-6)
    assert (out.logp[:, 1:] == 0).all()


def test_random_order_takes_every_order_alike() -> None:
    out = engine(Table(SHARP), "random").generate([[3, 4]], 2400, Sampling(max_new_tokens=4),
                                                  torch.Generator().manual_seed(0))
    assert out.when is not None
    orders = Counter(map(tuple, out.when.tolist()))
    assert len(orders) == 24
    assert max(abs(n - 100) for n in orders.values()) < 45  # 100 ± 4.5 deviations


def test_a_completion_ends_with_its_first_stop() -> None:
    out = engine(Table(SHARP)).generate([[3, 4]], 1, Sampling(max_new_tokens=4, temperature=0.0, stop_tokens=(2,)),
                                        torch.Generator())
    assert (out.lengths.tolist(), out.finished.tolist(), out.tokens.tolist()) == ([2], [True], [[1, 2, 3, 0]])
    assert (out.logp[0, 2:] == 0).all()
    text = engine(Table(SHARP)).generate([[3, 4]], 1, Sampling(max_new_tokens=4, temperature=0.0, stop_strings=("23",)),
                                         torch.Generator())
    assert (text.lengths.tolist(), text.finished.tolist()) == ([3], [True])


def test_a_row_is_filled_alike_in_any_company() -> None:
    net, sampling = Table([[0.0] * 5] * 4), Sampling(max_new_tokens=4)
    both = engine(net).generate([[3, 4], [1, 2]], 2, sampling, torch.Generator().manual_seed(3))
    alone = engine(net).generate([[3, 4]], 2, sampling, torch.Generator().manual_seed(3))
    assert torch.equal(both.tokens[:2], alone.tokens)
    assert len(both.tokens.unique(dim=0)) > 1


def test_what_cannot_be_is_one_line() -> None:
    with pytest.raises(UserError, match="bad_words: this policy does not write from left to right"):
        engine(Table(SHARP)).generate([[1]], 1, Sampling(max_new_tokens=4, bad_words=((1,),)), torch.Generator())
    with pytest.raises(UserError, match=r"max_new_tokens = 15: the longest prompt has 2 tokens and the context 16"):
        engine(Table(SHARP)).generate([[1, 2]], 1, Sampling(max_new_tokens=15), torch.Generator())
    with pytest.raises(UserError, match="per_pass"):
        Unmasking(per_pass=0)


def test_canvases_follow_their_prompts() -> None:
    ids, present, places = lay_out([[1], [2, 3, 4]], torch.tensor([[7, 8], [9, 9]]))
    assert ids.tolist() == [[1, 7, 8, 0, 0], [2, 3, 4, 9, 9]]
    assert present.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert places.tolist() == [[1, 2], [3, 4]]
