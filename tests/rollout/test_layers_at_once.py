"""All layers in one call give what one operation after the other gives, to the last bit."""

from __future__ import annotations

import pytest
import torch
from drawn import letters
from hugging_face import KINDS, tiny
from torch import Tensor

from posttrain.nets.architecture import read_architecture
from posttrain.nets.hf_weights import from_hf
from posttrain.nets.trace import PRODUCTS, Trace
from posttrain.nets.transformer import Transformer
from posttrain.rollout.embedded import EmbeddedEngine, Traced
from posttrain.rollout.engine import Completions, Sampling

PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 10], [5, 6, 7, *range(20, 50)], [5, 6, 7, 8]]
STOPPING = Sampling(max_new_tokens=20, stop_tokens=tuple(range(20, 40)), temperature=0.9)
SAMPLES = 3


def engine_of(kind: str) -> EmbeddedEngine:
    model = tiny(kind, tied=True)
    arch = read_architecture(model.config.to_dict())
    return EmbeddedEngine(Transformer(arch, from_hf(arch, model.state_dict())).bfloat16(), letters)


def drawn(engine: EmbeddedEngine, prompts: list[list[int]] = PROMPTS, samples: int = SAMPLES,
          limit: int | None = None) -> tuple[Completions, Trace | None]:
    """What is sampled, with what a trace of so many bytes keeps of it."""
    engine.net.trace = None
    leaving = engine if limit is None else Traced(engine, limit)
    return leaving.generate(prompts, samples, STOPPING, torch.Generator().manual_seed(0)), engine.net.trace


def one_by_one(engine: EmbeddedEngine) -> EmbeddedEngine:
    """The same without them; skips the test where nothing takes all layers at once."""
    if engine.by.layers is None:
        pytest.skip("no products of bf16 that compile here")
    other = EmbeddedEngine(engine.net, engine.decode)
    other.by.layers = None
    return other


def equal(a: Completions, b: Completions) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("tokens", "logp", "log_kept", "lengths"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture(kind: str) -> None:
    engine = engine_of(kind)
    other = one_by_one(engine)
    found, _ = drawn(engine)
    assert len(found.lengths.unique()) > 2  # rows left one after the other
    assert equal(found, drawn(other)[0])


@pytest.mark.parametrize("samples", [1, 2, 17])
def test_any_number_of_rows(samples: int) -> None:
    engine = engine_of("Llama")
    other = one_by_one(engine)
    assert equal(drawn(engine, PROMPTS[2:3], samples)[0], drawn(other, PROMPTS[2:3], samples)[0])


@pytest.mark.parametrize("limit", [1 << 30, 400_000, 1])
def test_what_a_trace_keeps(limit: int) -> None:
    """Of all layers, of one, of none: a layer gives 512 numbers for each of at most 287 tokens, 294 kB."""
    engine = engine_of("Qwen3")
    other = one_by_one(engine)
    (found, kept), (expected, other_kept) = drawn(engine, limit=limit), drawn(other, limit=limit)
    assert equal(found, expected)
    assert kept is not None and other_kept is not None
    assert kept.layers == {1 << 30: engine.net.arch.layers, 400_000: 1, 1: 0}[limit]
    assert sorted(kept.kept) == sorted(other_kept.kept) == sorted(
        f"{i}.{name}" for i in range(kept.layers) for name in PRODUCTS)
    for name, parts in kept.kept.items():
        assert torch.equal(torch.cat(parts), torch.cat(other_kept.kept[name])), name


def test_new_weights_are_taken_over() -> None:
    engine = engine_of("Llama")
    one_by_one(engine)
    before: Tensor = drawn(engine)[0].logp
    with torch.no_grad():
        for w in engine.net.parameters():
            w.mul_(1.1)
    engine.update()
    found, _ = drawn(engine)
    assert not torch.equal(found.logp, before)
    assert equal(found, drawn(one_by_one(engine))[0])
