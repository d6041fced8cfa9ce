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

from posttrain.rollout.engine import Sampling
from posttrain.rollout.sampler import draw, search, truncate

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


def test_rows_are_drawn_alone() -> None:
    generator = torch.Generator().manual_seed(4)
    logits, uniform = torch.randn(6, 300, generator=generator), torch.rand(6, generator=generator)
    together = draw(logits.clone(), uniform, PLAIN)
    for i in range(6):
        alone = draw(logits[i:i + 1].clone(), uniform[i:i + 1], PLAIN)
        assert int(alone.token) == int(together.token[i])
        assert float(alone.logp) == float(together.logp[i])
