"""The sampler draws from exactly the distribution that it reports."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from posttrain.core.errors import UserError
from posttrain.nets.softmax import softmax, softmax_drawn
from posttrain.rollout.engine import Sampling
from posttrain.rollout.sampler import NONE, draw, endings, search, truncate

PLAIN = Sampling(max_new_tokens=1)
P = torch.tensor([[0.1, 0.4, 0.2, 0.3]])  # in no order


def tokens(logits: Tensor, sampling: Sampling, grid: int = 4000) -> tuple[Tensor, Tensor]:
    """How often each token comes of `grid` evenly spaced uniform numbers, and the log-probability each reported."""
    uniform = (torch.arange(grid) + 0.5) / grid
    out = draw(logits.expand(grid, -1).clone(), uniform, sampling)
    share = torch.bincount(out.token, minlength=logits.shape[1]) / grid
    logp = torch.full((logits.shape[1],), -torch.inf).scatter(0, out.token, out.logp)
    return share, logp


@given(st.lists(st.integers(0, 7), min_size=1, max_size=700).filter(any), st.lists(st.integers(0, 1023), min_size=1,
                                                                                   max_size=8))
def test_search_is_the_inverse_of_the_distribution(mass: list[int], numerators: list[int]) -> None:
    """Whole masses below 8 and u = k / 1024: every product fits in fp32, so numpy must agree exactly."""
    weights = torch.tensor([mass], dtype=torch.float32).expand(len(numerators), -1)
    uniform = torch.tensor(numerators) / 1024
    ends = np.cumsum(np.array(mass, dtype=np.float64))
    expected = np.searchsorted(ends, uniform.numpy().astype(np.float64) * ends[-1], side="right")
    assert search(weights, uniform).tolist() == expected.tolist()


def test_search_at_the_edges_of_blocks() -> None:
    """600 equal masses and u = k / 600, rounded up a little: token k, in blocks of 256 as anywhere else."""
    k = torch.tensor([0, 1, 255, 256, 257, 511, 512, 599])
    assert search(torch.ones(len(k), 600), (k + 0.01) / 600).tolist() == k.tolist()
    edges = torch.tensor([0, 255, 256, 257, 511])
    assert search(torch.ones(len(edges), 512), edges / 512).tolist() == edges.tolist()  # exactly at the edge


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=600), st.floats(0, 1, exclude_max=True, width=32))
def test_only_tokens_with_mass_are_drawn(logits: list[float], u: float) -> None:
    """Rounding at the very end of the distribution must not fall off it, nor land where there is nothing."""
    row = torch.tensor([[*logits, -torch.inf, -torch.inf]])
    for uniform in (u, 0.0, 1 - 2**-24):
        out = draw(row.clone(), torch.tensor([uniform]), PLAIN)
        assert int(out.token) < len(logits)
        assert_close(out.logp, row.log_softmax(-1)[0, out.token])


def test_frequencies_are_the_probabilities() -> None:
    """With u on an even grid each token's share is its probability to within one step of the grid at either end."""
    logits = torch.randn(1, 600, generator=torch.Generator().manual_seed(0))
    share, logp = tokens(logits, PLAIN)
    assert (share - logits.softmax(-1)[0]).abs().max() <= 2 / 4000
    drawn = share > 0
    assert_close(logp[drawn], logits.log_softmax(-1)[0, drawn])


def test_temperature() -> None:
    # p² / Σ p²: Σ = 0.01 + 0.16 + 0.04 + 0.09 = 0.3.
    share, logp = tokens(P.log(), Sampling(max_new_tokens=1, temperature=0.5))
    expected = torch.tensor([0.01, 0.16, 0.04, 0.09]) / 0.3
    assert (share - expected).abs().max() <= 2 / 4000
    assert_close(logp, expected.log())


def test_temperature_zero_takes_the_likeliest() -> None:
    out = draw(P.log().expand(2, -1).clone(), torch.tensor([0.0, 0.99]), Sampling(max_new_tokens=1, temperature=0.0))
    assert out.token.tolist() == [1, 1]
    assert_close(out.logp, torch.full((2,), math.log(0.4)))
    assert out.log_kept.tolist() == [0, 0]


@pytest.mark.parametrize(("top_k", "top_p", "kept"), [
    # Masses 1, 4, 2, 3 of 10; from the likeliest: 4, 3, 2, 1.
    (0, 1.0, [1, 4, 2, 3]),
    (1, 1.0, [0, 4, 0, 0]),
    (2, 1.0, [0, 4, 0, 3]),
    (4, 1.0, [1, 4, 2, 3]),
    (9, 1.0, [1, 4, 2, 3]),
    (0, 0.70, [0, 4, 0, 3]),  # 4 + 3 reach 7
    (0, 0.71, [0, 4, 2, 3]),  # 4 + 3 do not reach 7.1
    (0, 0.40, [0, 4, 0, 0]),
    (0, 1e-9, [0, 4, 0, 0]),
    (0, 0.0, [0, 4, 0, 0]),
    (3, 0.75, [0, 4, 0, 3]),  # of the 9 that are left 6.75 are to be reached: 4 + 3
    (2, 0.57, [0, 4, 0, 0]),  # of 7: 3.99
])
def test_truncation_by_hand(top_k: int, top_p: float, kept: list[int]) -> None:
    mass = torch.tensor([[1.0, 4.0, 2.0, 3.0]])
    assert truncate(mass, Sampling(max_new_tokens=1, top_k=top_k, top_p=top_p)).tolist() == [kept]
    assert mass.tolist() == [[1, 4, 2, 3]]


@pytest.mark.parametrize(("min_p", "top_k", "top_p", "kept"), [
    # Of the likeliest token's mass, 4: tokens below min_p · 4 go.
    (0.25, 0, 1.0, [1, 4, 2, 3]),
    (0.26, 0, 1.0, [0, 4, 2, 3]),
    (0.51, 0, 1.0, [0, 4, 0, 3]),
    (1.0, 0, 1.0, [0, 4, 0, 0]),
    (0.26, 2, 1.0, [0, 4, 0, 3]),
    (0.51, 3, 1.0, [0, 4, 0, 3]),
    (0.51, 0, 0.71, [0, 4, 0, 3]),  # top-p first, of all 10: 4, 3 and 2 reach 7.1; min-p then drops the 2
    (0.51, 0, 0.40, [0, 4, 0, 0]),
])
def test_min_p_by_hand(min_p: float, top_k: int, top_p: float, kept: list[int]) -> None:
    mass = torch.tensor([[1.0, 4.0, 2.0, 3.0]])
    assert truncate(mass, Sampling(max_new_tokens=1, min_p=min_p, top_k=top_k, top_p=top_p)).tolist() == [kept]
    assert mass.tolist() == [[1, 4, 2, 3]]


@pytest.mark.parametrize(("top_k", "top_p", "mass"), [(2, 1.0, 0.7), (0, 0.8, 0.9), (0, 0.0, 0.4), (0, 1.0, 1.0)])
def test_truncation_shares_out_what_is_kept(top_k: int, top_p: float, mass: float) -> None:
    """Draws are from p / kept mass; the reported log p is that of the whole distribution, the kept mass beside it."""
    sampling = Sampling(max_new_tokens=1, top_k=top_k, top_p=top_p)
    share, logp = tokens(P.log(), sampling)
    drawn = share > 0
    assert (share[drawn] - P[0, drawn] / mass).abs().max() <= 2 / 4000
    assert_close(logp[drawn], P[0, drawn].log())
    lost = draw(P.log(), torch.tensor([0.3]), sampling).log_kept
    assert_close(lost, torch.tensor([math.log(mass)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 5, 256, 257, 1003])
def test_a_token_is_drawn_at_once_as_by_searching(width: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(width)
    logits = (3 * torch.randn(400, width, generator=generator)).to(dtype)
    logits[::7, : width // 2] = -torch.inf  # the first half, whole blocks among them, is impossible
    logits[::5, (width + 1) // 2:] = -200.0  # so unlikely that it counts as impossible
    uniform = torch.rand(400, generator=generator)
    uniform[:20], uniform[20:40] = 0.0, 1 - 2**-24
    found = softmax_drawn(logits.clone(), 0.7, uniform)
    if found is None:
        pytest.skip("nothing compiles here")
    soft, token = found
    expected = softmax(logits, 0.7, mass=True)
    assert expected.mass is not None
    assert torch.equal(soft.most, expected.most)
    assert torch.equal(soft.total, expected.total)
    assert (expected.mass.gather(1, token[:, None]) > 0).all()
    assert torch.equal(token[40:], search(expected.mass, uniform)[40:])
    # quantile 0 is the first token that is possible, the last quantile the last one, or where the sum falls short of it
    # by rounding one of those that have no more than rounding after them
    assert torch.equal(token[:20], (expected.mass[:20] > 0).int().argmax(1))
    after = torch.where(torch.arange(width) > token[20:40, None], expected.mass[20:40], 0.0).sum(1)
    assert (after <= 1e-5 * expected.total[20:40]).all()


def test_logits_that_are_not_numbers_draw_a_token_of_the_vocabulary() -> None:
    token = draw(torch.full((3, 300), torch.nan), torch.tensor([0.0, 0.5, 0.99]), PLAIN).token
    assert ((token >= 0) & (token < 300)).all()


def test_rows_are_drawn_alone() -> None:
    generator = torch.Generator().manual_seed(4)
    logits, uniform = torch.randn(6, 300, generator=generator), torch.rand(6, generator=generator)
    together = draw(logits.clone(), uniform, PLAIN)
    for i in range(6):
        alone = draw(logits[i:i + 1].clone(), uniform[i:i + 1], PLAIN)
        assert int(alone.token) == int(together.token[i])
        assert float(alone.logp) == float(together.logp[i])


BAN = (1,), (3, 0)  # token 1, and 0 after a 3


def exact(logits: Tensor, sampling: Sampling, banned: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """p and q in float64, worked out token by token from the definition."""
    tau, v = sampling.temperature, logits.shape[-1]
    p = (logits.double().view(-1) / tau).softmax(-1)
    weight = [float(x) for x in logits.double().view(-1)]
    for token, bias in sampling.logit_bias:
        weight[token] += bias
    mass = [0.0 if i in banned else math.exp(w / tau) for i, w in enumerate(weight)]
    order = sorted(range(v), key=lambda i: -mass[i])[: sampling.top_k or v]
    whole, reached, kept = sum(mass[i] for i in order), 0.0, []
    for i in order:
        if reached < sampling.top_p * whole and mass[i] >= sampling.min_p * mass[order[0]]:
            kept.append(i)
        reached += mass[i]
    q = torch.tensor([mass[i] if i in kept else 0.0 for i in range(v)], dtype=torch.float64)
    return p, q / q.sum()


@pytest.mark.parametrize("options", [
    {"min_p": 0.2}, {"min_p": 0.05, "temperature": 1.7}, {"min_p": 0.1, "top_p": 0.8}, {"min_p": 0.02, "top_k": 9},
    {"logit_bias": ((3, 2.5),)}, {"logit_bias": ((0, -4.0), (5, 1.0), (5, 1.5)), "temperature": 0.6},
    {"logit_bias": ((2, 3.0),), "top_k": 4}, {"logit_bias": ((2, 30.0),)}, {"bad_words": BAN},
    {"bad_words": BAN, "logit_bias": ((1, 50.0), (7, -1.0)), "min_p": 0.1, "top_p": 0.9, "temperature": 1.3},
], ids=str)
def test_draws_follow_q_and_report_p(options: dict[str, object]) -> None:
    """An even grid of uniform numbers gives every token its q to one step of the grid at either end, and
    log p − log_kept is log q."""
    sampling = Sampling(max_new_tokens=1, **options)  # type: ignore[arg-type]
    logits, grid = 1.5 * torch.randn(1, 40, generator=torch.Generator().manual_seed(5)), 20000
    banned = (1, 0) if sampling.bad_words else ()
    p, q = exact(logits, sampling, banned)
    uniform = (torch.arange(grid) + 0.5) / grid
    before = torch.full((grid, sampling.memory), 3)
    out = draw(logits.expand(grid, -1).clone(), uniform, sampling, before)
    share = torch.bincount(out.token, minlength=40) / grid
    assert (share - q).abs().max() <= 2 / grid
    assert ((share > 0) <= (q > 0)).all()
    assert_close(out.logp, p.log()[out.token].float(), rtol=0, atol=2e-5)
    assert_close(out.logp - out.log_kept, q.log()[out.token].float(), rtol=0, atol=2e-5)


def test_draws_with_random_numbers_pass_a_chi_square_test() -> None:
    sampling = Sampling(max_new_tokens=1, min_p=0.1, logit_bias=((0, 1.0),), bad_words=BAN, temperature=0.9)
    logits, n = torch.randn(1, 12, generator=torch.Generator().manual_seed(6)), 30000
    _, q = exact(logits, sampling, (1, 0))
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(7))
    token = draw(logits.expand(n, -1).clone(), uniform, sampling, torch.full((n, 1), 3)).token
    expected, seen = n * q[q > 0], torch.bincount(token, minlength=12)[q > 0]
    assert 5 <= len(expected) <= 11
    statistic = float(((seen - expected) ** 2 / expected).sum())
    assert statistic < 29.6  # the 0.1% point of χ² with 10 degrees of freedom, and there are no more


def test_a_bias_by_hand() -> None:
    # p = 0.1, 0.4, 0.2, 0.3.  Adding log 6 to token 0 makes its mass 0.6 of 1.5: q = 0.4, 0.267, 0.133, 0.2.
    # log_kept is log p / q: log(0.1 / 0.4) for token 0, and log 1.5 for every other.
    sampling = Sampling(max_new_tokens=1, logit_bias=((0, math.log(6)),))
    share, logp = tokens(P.log(), sampling)
    assert (share - torch.tensor([0.6, 0.4, 0.2, 0.3]) / 1.5).abs().max() <= 2 / 4000
    assert_close(logp, P[0].log())
    for u, expected in ((0.2, 0.25), (0.5, 1.5), (0.99, 1.5)):
        out = draw(P.log(), torch.tensor([u]), sampling)
        assert_close(out.log_kept, torch.tensor([math.log(expected)]))
    greedy = draw(P.log(), torch.zeros(1), Sampling(max_new_tokens=1, temperature=0, logit_bias=((0, math.log(6)),)))
    assert greedy.token.tolist() == [0]
    assert greedy.log_kept.tolist() == [0]
    assert_close(greedy.logp, torch.tensor([math.log(0.1)]))


def test_bad_words_are_matched_row_by_row() -> None:
    """Before rows: nothing; 5; 4, 5; 2, 5.  Words: 1 alone; 3 after 5; 2 after 4, 5."""
    sampling = Sampling(max_new_tokens=1, bad_words=((1,), (5, 3), (4, 5, 2)))
    before = torch.tensor([[NONE, NONE], [NONE, 5], [4, 5], [2, 5]])
    rows = torch.arange(4).repeat_interleave(60)  # of each row all tokens that it can draw
    token = draw(torch.zeros(240, 6), (torch.arange(240) % 60 + 0.5) / 60, sampling, before[rows]).token
    allowed = [sorted(set(token[rows == i].tolist())) for i in range(4)]
    assert allowed == [[0, 2, 3, 4, 5], [0, 2, 4, 5], [0, 4, 5], [0, 2, 4, 5]]


def test_a_row_where_nothing_is_forbidden_is_as_without_bad_words() -> None:
    generator = torch.Generator().manual_seed(8)
    logits, uniform = torch.randn(5, 300, generator=generator), torch.rand(5, generator=generator)
    sampling = Sampling(max_new_tokens=1, bad_words=((7, 8),))
    out, plain = draw(logits.clone(), uniform, sampling, torch.full((5, 1), 9)), draw(logits.clone(), uniform, PLAIN)
    for found, expected in zip(out, plain, strict=True):
        assert torch.equal(found, expected)


def test_endings() -> None:
    prompts = [[1, 2, 3], [4]]
    assert endings(prompts, 2).tolist() == [[2, 3], [NONE, 4]]
    assert endings(prompts, 0).shape == (2, 0)


@pytest.mark.parametrize(("options", "message"), [
    ({"bad_words": ((0,), (1,), (2,), (3,))}, "bad_words: the 4 of them forbid every token of the vocabulary"),
    ({"bad_words": ((1, 9),)}, "bad_words: token 9 is not of the vocabulary, which has 4"),
    ({"logit_bias": ((4, 1.0),)}, "logit_bias: token 4 is not of the vocabulary, which has 4"),
    ({"logit_bias": ((1, math.inf),)}, r"logit_bias = \(1, inf\): must be a token id ≥ 0 and a finite number"),
    ({"bad_words": ((),)}, r"bad_words = \(\): must be one or more token ids ≥ 0"),
    ({"bad_words": ((-1,),)}, r"bad_words = \(-1,\): must be one or more token ids ≥ 0"),
    ({"min_p": 1.5}, "min_p = 1.5: must be ≥ 0 and ≤ 1"),
])
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    def attempt() -> None:
        sampling = Sampling(max_new_tokens=1, **options)  # type: ignore[arg-type]
        draw(P.log(), torch.zeros(1), sampling, torch.full((1, sampling.memory), NONE))

    with pytest.raises(UserError, match=message):
        attempt()
