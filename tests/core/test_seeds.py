"""Seeds of named streams: pinned, because a run of last year must be the run of today."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.core.seeds import derive


@pytest.mark.parametrize(("names", "seed"), [
    # half of: printf 0/rollout/0 | b2sum -l 64
    ((0, "rollout", 0), 7823815315310568912),
    ((1, "rollout", 0), 7366248995999970905),
    ((0, "minibatches", 12), 1178259315662397481),
    ((7,), 8333924190356522945),
])
def test_pinned(names: tuple[int | str, ...], seed: int) -> None:
    assert derive(*names) == seed  # type: ignore[arg-type]


@given(st.integers(0, 2**40), st.text(max_size=8), st.integers(0, 10**6))
def test_fits_a_generator_and_tells_streams_apart(seed: int, name: str, step: int) -> None:
    value = derive(seed, name, step)
    assert 0 <= value < 2**63
    assert value != derive(seed, name, step + 1)
    assert value != derive(seed + 1, name, step)
