"""Steps of fixed shapes: what they draw is what the engine draws without them, and rows that are nobody's stay unheard.

On a processor the same steps are run one by one that a CUDA graph replays.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from drawn import WAYS, letters, same
from hugging_face import KINDS, tiny
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toy import toy_model

from posttrain.nets.architecture import read_architecture
from posttrain.nets.hf_weights import from_hf
from posttrain.nets.transformer import Transformer
from posttrain.rollout.buckets import GRAIN, Buckets, Seated, Size, bucket
from posttrain.rollout.cache import Shape
from posttrain.rollout.embedded import EmbeddedEngine
from posttrain.rollout.engine import Completions, Sampling
from posttrain.rollout.sampler import drawn_bytes

HEAD = list(range(40, 57))  # what all prompts begin with: 17 tokens, of which 16 are kept once
PROMPTS = [[*HEAD, *rest] for rest in ([8, 9], [10], [11, 12, 13, 14, 15, 16], [20])]
SAMPLES = 3
STOPPING = Sampling(max_new_tokens=20, stop_tokens=tuple(range(20, 28)))  # about one token in twelve


def toy() -> Transformer:
    return toy_model(dtype=torch.float32)


def sample(engine: EmbeddedEngine, sampling: Sampling = STOPPING, prompts: list[list[int]] = PROMPTS, seed: int = 0
           ) -> Completions:
    return engine.generate(prompts, SAMPLES, sampling, torch.Generator().manual_seed(seed))


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[Size]:
    """Of every step from here on, in order."""
    seen: list[Size] = []
    forward = Buckets._forward

    def noted(self: Buckets, size: Size) -> Tensor:
        seen.append(size)
        return forward(self, size)

    monkeypatch.setattr(Buckets, "_forward", noted)
    return seen


def budget_for(rows: int, sampling: Sampling = STOPPING, shared: int = 17) -> int:
    """The least with which that many rows live side by side, in grains."""
    arch = toy().arch
    whole = Shape(arch, torch.float32, shared, max(map(len, PROMPTS)) - shared, sampling.max_new_tokens,
                  drawn_bytes(sampling, toy().head)).in_grains(GRAIN)
    return whole.bytes(rows, min(len(PROMPTS), rows, 2 * -(-rows // SAMPLES)))


@cache
def plainly(sampling: Sampling = STOPPING) -> Completions:
    return sample(EmbeddedEngine(toy(), letters, replays=False), sampling)


@pytest.mark.parametrize("rows", [1, 5, 12])
def test_the_same_completions_whatever_fits(rows: int, sizes: list[Size]) -> None:
    """Where 5 of 12 rows fit, others join as rows end."""
    engine = EmbeddedEngine(toy(), letters, replays=True)
    engine.keep_to(budget_for(rows))
    same(sample(engine), plainly())
    assert max(size.rows for size in sizes) == rows


def test_buckets_change_amid_a_completion(sizes: list[Size]) -> None:
    """12 rows of 4 prompts, of 20 tokens at most: rows and prompts leave, and a 17th column is needed.

    Sizes are powers of two, or as large as can be: 12 rows, and 32 columns for 20 tokens in grains of 16.
    """
    same(sample(EmbeddedEngine(toy(), letters, replays=True)), plainly())
    assert int(plainly().lengths.max()) == 20 and len(plainly().lengths.unique()) > 4
    assert {size.rows for size in sizes} <= {1, 2, 4, 8, 12} and len({size.rows for size in sizes}) > 2
    assert {size.prompts for size in sizes} <= {1, 2, 4} and len({size.prompts for size in sizes}) > 1
    assert {size.width for size in sizes} == {16, 32}


@pytest.mark.parametrize(("count", "most", "least", "size"), [
    (1, 99, 1, 1), (2, 99, 1, 2), (3, 99, 1, 4), (64, 99, 1, 64), (65, 99, 1, 99), (3, 99, 16, 16), (3, 2, 1, 2)])
def test_bucket(count: int, most: int, least: int, size: int) -> None:
    assert bucket(count, most, least) == size


@pytest.mark.parametrize("options", WAYS, ids=lambda options: "-".join(options))
def test_every_way_of_drawing(options: dict[str, Any]) -> None:
    sampling = replace(STOPPING, **options)
    engine = EmbeddedEngine(toy(), letters, replays=True)
    engine.keep_to(budget_for(5, sampling))
    same(sample(engine, sampling), plainly(sampling))


@pytest.mark.parametrize("kind", KINDS)
def test_windows_and_all_else_that_a_model_may_have(kind: str) -> None:
    """Windows are four tokens wide here, so that a row looks at nothing of its prompt from its fifth token on."""
    model = tiny(kind, tied=True)
    arch = read_architecture(model.config.to_dict())
    net = Transformer(arch, from_hf(arch, model.state_dict()))
    same(*(sample(EmbeddedEngine(net, letters, replays)) for replays in (True, False)))


def test_what_is_nobodys_is_unheard_of() -> None:
    """Whatever free places of the cache hold, of rows, of prompts, or beyond their ends: the same bits."""
    engine, found = EmbeddedEngine(toy(), letters, replays=True), []
    for garbage in (0.0, 1e3):
        sample(engine)  # so that there is a cache
        assert engine.buckets is not None
        for store in (engine.buckets.cache.root, engine.buckets.cache.prompts, engine.buckets.cache.rows):
            store.fill_(garbage)
        found.append(sample(engine))
    same(found[0], plainly())
    for name in ("tokens", "logp", "log_kept", "lengths", "finished"):
        assert torch.equal(getattr(found[0], name), getattr(found[1], name))


def test_rows_beyond_the_last_place_are_nobodys() -> None:
    """Two prompts of two places: rows 0 and 2 are the second prompt's first and the first's second, row 1 nobody's."""
    seated = Seated(2, 2, torch.tensor([2, 4, 1]))
    x = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1)
    assert seated.fold(x).flatten().tolist() == [0, 3, 1, 0]
    back = seated.unfold(seated.fold(x)).flatten()
    assert back[[0, 2]].tolist() == [1, 3] and bool(back[1].isfinite())


def test_calls_that_are_alike_share_their_steps() -> None:
    """What a graph was made of stays where it is: through calls, updates of weights, and prompts of other lengths."""
    net = toy()
    engine = EmbeddedEngine(net, letters, replays=True)
    sample(engine)
    first = engine.buckets
    sample(engine, prompts=[[*HEAD, 1], [*HEAD, 2, 3], [*HEAD, 4], [*HEAD, 5]], seed=1)
    assert engine.buckets is first
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.01)
    engine.update()
    same(sample(engine), sample(EmbeddedEngine(net, letters, replays=False)))
    assert engine.buckets is first
    sample(engine, replace(STOPPING, temperature=0.0))
    assert engine.buckets is not first


def test_weights_that_move_elsewhere_are_followed() -> None:
    """As when an optimizer makes parameters views of its master copy, after the engine was made."""
    net = toy()
    engine = EmbeddedEngine(net, letters, replays=True)
    sample(engine)
    for parameter in net.parameters():
        parameter.data = 1.01 * parameter.data
    same(sample(engine), sample(EmbeddedEngine(net, letters, replays=False)))


def test_adapters_are_folded_in_where_the_weights_were() -> None:
    net = toy()
    net.add_lora(2, 4.0, torch.Generator().manual_seed(0))
    engine = EmbeddedEngine(net, letters, replays=True)
    same(sample(engine), plainly())  # B is 0
    first = engine.buckets
    with torch.no_grad():
        for pair in net.lora.values():
            pair[1].normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    engine.update()
    found = sample(engine)
    assert engine.buckets is first and not torch.equal(found.tokens, plainly().tokens)
    same(found, sample(EmbeddedEngine(net, letters, replays=False)))


def test_a_step_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a graph captures may not read a number back to the host, nor bring one from there."""
    forbidden = ("_local_scalar_dense", "nonzero", "item", "_to_copy", "is_nonzero", "unique", "masked_select", "equal")
    inside: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            inside.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    step = Buckets._step

    def watched(self: Buckets, size: Size) -> Any:
        with Watch():
            return step(self, size)

    monkeypatch.setattr(Buckets, "_step", watched)
    same(sample(EmbeddedEngine(toy(), letters, replays=True), replace(STOPPING, top_p=0.9, top_k=30)),
         plainly(replace(STOPPING, top_p=0.9, top_k=30)))
    assert "rms_norm" in str(inside) or "mm" in str(inside)
    assert not set(inside) & set(forbidden), set(inside) & set(forbidden)
