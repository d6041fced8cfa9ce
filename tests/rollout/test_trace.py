"""An update of the weights that sampled takes over the sampler's products, and has the gradients of computing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from drawn import as_batch, letters, operations  # noqa: F401
from hugging_face import KINDS, tiny
from torch import Tensor
from torch.testing import assert_close
from toy import toy_model

from posttrain.core import Groups
from posttrain.nets.architecture import read_architecture
from posttrain.nets.hf_weights import from_hf
from posttrain.nets.trace import NOTHING, Trace, gather, version
from posttrain.nets.transformer import Transformer
from posttrain.policies.causal_lm import CausalLM, Sequences, pack
from posttrain.rollout.embedded import EmbeddedEngine, Traced, traced
from posttrain.rollout.engine import Sampling
from posttrain.train.optim import FlatAdamW

PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 10], [5, 6, 7, 8], [5, 6, 7, 10]]  # one begins another, two are equal
STOPPING = Sampling(max_new_tokens=12, stop_tokens=tuple(range(20, 35)), temperature=0.9)
SAMPLES = 3


def sampled(net: Transformer, prompts: Sequence[Sequence[int]] = PROMPTS, seed: int = 0,
            engine: EmbeddedEngine | None = None, limit: int | None = None) -> Groups:
    """What a traced engine drew, as the rows that an update learns from."""
    engine = engine or EmbeddedEngine(net, letters)
    leaving = traced(engine) if limit is None else Traced(engine, limit)
    out = leaving.generate(prompts, SAMPLES, STOPPING, torch.Generator().manual_seed(seed))
    return as_batch(prompts, out, SAMPLES, STOPPING.temperature)


def learnt(net: Transformer, batch: Groups, entropy: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Log-probabilities, and the gradient of a sum that weighs each differently."""
    net.zero_grad()
    score = CausalLM(net, None).score(batch, entropy)
    total = (score.log_prob * torch.linspace(-1, 1, batch.mask.numel()).view_as(batch.mask)).sum()
    (total if score.entropy is None else total + score.entropy.sum()).backward()
    return score.log_prob.detach(), [torch.zeros(()) if p.grad is None else p.grad.clone() for p in net.parameters()]


class Counted:
    """How many products with a layer's weights the training pass makes."""

    def __init__(self, net: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.products, linear = 0, net.linear

        def counting(x: Tensor, name: str) -> Tensor:
            self.products += 1
            return linear(x, name)

        monkeypatch.setattr(net, "linear", counting)


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_computing_everything(kind: str, entropy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(kind, tied=entropy)
    arch = read_architecture(model.config.to_dict())
    net = Transformer(arch, from_hf(arch, model.state_dict()))
    batch = sampled(net)
    counted = Counted(net, monkeypatch)
    logp, found = learnt(net, batch, entropy)
    assert counted.products == 0
    net.trace = None
    again, expected = learnt(net, batch, entropy)
    assert counted.products == 4 * arch.layers
    assert len(batch.mask.sum(1).unique()) > 2
    assert_close(logp, again, rtol=0, atol=1e-5)
    for x, y in zip(found, expected, strict=True):
        assert_close(x, y, rtol=1e-4, atol=1e-5 * float(y.abs().max() + 1))


def test_log_probabilities_are_the_samplers_to_the_last_bit(operations: str) -> None:  # noqa: F811
    """In bf16 too: the numbers are those that were drawn from."""
    net = toy_model(dtype=torch.bfloat16)
    batch = sampled(net)
    logp, _ = learnt(net, batch)
    assert torch.equal(logp, batch.logp_behaviour * batch.mask)


def test_some_rows_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A micro-batch shares other first tokens than the whole did: here the prompt with all that is before its end."""
    net = toy_model(dtype=torch.float32)
    batch, counted = sampled(net), Counted(net, monkeypatch)
    for some in ([4], [11, 3, 10], [6, 7], list(range(11, -1, -1))):
        logp, _ = learnt(net, batch.take(torch.tensor(some)))
        assert_close(logp, batch.logp_behaviour[some] * batch.mask[some], rtol=0, atol=1e-5)
    assert counted.products == 0


def test_a_step_ends_it() -> None:
    """What the old weights gave is of no use to the new ones, whether they are fp32 or rounded from it."""
    for dtype in (torch.float32, torch.bfloat16):
        net = toy_model(dtype=dtype)
        optimizer, batch = FlatAdamW(net), sampled(net)
        tree = pack(batch.payload, batch.mask).tree  # type: ignore[arg-type]
        learnt(net, batch)
        assert net.recall(tree) is not None
        optimizer.step(0.01, 1.0)
        assert net.recall(tree) is None
        moved, _ = learnt(net, batch)
        net.trace = None
        assert torch.equal(moved, learnt(net, batch)[0])


def test_other_weights_in_their_place_end_it() -> None:
    net = toy_model(dtype=torch.float32)
    batch = sampled(net)
    net.double()
    assert net.recall(pack(batch.payload, batch.mask).tree) is None  # type: ignore[arg-type]


def test_weights_that_moved_since_the_engine_took_them_over_leave_no_trace() -> None:
    net = toy_model(dtype=torch.float32)
    engine, optimizer = EmbeddedEngine(net, letters), FlatAdamW(net)
    optimizer.step(0.01, 1.0)
    batch = sampled(net, engine=engine)
    assert net.recall(pack(batch.payload, batch.mask).tree) is None  # type: ignore[arg-type]
    engine.update()
    assert net.trace is None
    batch = sampled(net, engine=engine)
    assert net.recall(pack(batch.payload, batch.mask).tree) is not None  # type: ignore[arg-type]


def test_rows_of_others_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    net = toy_model(dtype=torch.float32)
    batch, counted = sampled(net), Counted(net, monkeypatch)
    tokens = batch.payload.tokens.clone()  # type: ignore[attr-defined]
    tokens[0, 0] = (tokens[0, 0] + 1) % 20 + 40
    sequences = batch.payload
    assert isinstance(sequences, Sequences)
    other = batch.replace(payload=Sequences(sequences.prompts, sequences.prompt, tokens, sequences.lengths, 0.9))
    logp, _ = learnt(net, other)
    assert counted.products == 8
    net.trace = None
    assert torch.equal(logp, learnt(net, other)[0])


def test_a_second_call_adds_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    net = toy_model(dtype=torch.float32)
    engine = EmbeddedEngine(net, letters)
    first, second = (sampled(net, seed=seed, engine=engine) for seed in (0, 1))
    counted = Counted(net, monkeypatch)
    for batch in (first, second):
        logp, _ = learnt(net, batch)
        assert_close(logp, batch.logp_behaviour * batch.mask, rtol=0, atol=1e-5)
    assert counted.products == 0


@pytest.mark.parametrize(("layers", "logits_too"), [(0, False), (1, False), (2, False), (2, True)])
def test_as_much_as_fits(layers: int, logits_too: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """161 tokens at most, of two layers with products of 64 + 32 + 96 + 32 numbers, and logits of 97, fp32."""
    tokens = sum(map(len, PROMPTS)) + len(PROMPTS) * SAMPLES * 12
    assert tokens == 161
    layer, logits = tokens * 4 * (64 + 32 + 96 + 32), tokens * 4 * 97
    net = toy_model(dtype=torch.float32)
    limit = layers * layer + (logits if logits_too else logits - 1)
    batch, counted = sampled(net, limit=limit), Counted(net, monkeypatch)
    assert net.trace is not None
    assert (net.trace.layers, net.trace.with_logits) == (layers, logits_too)
    assert held(net.trace) <= limit
    _, found = learnt(net, batch)
    assert counted.products == 4 * (2 - layers)
    net.trace = None
    for x, y in zip(found, learnt(net, batch)[1], strict=True):
        assert_close(x, y, rtol=1e-4, atol=1e-5 * float(y.abs().max() + 1))


def held(trace: Trace) -> int:
    parts = [x for kept in trace.kept.values() for x in kept] + trace.logit_parts
    return sum(x.numel() * x.element_size() for x in parts)


def test_what_no_longer_fits_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    net = toy_model(dtype=torch.float32)
    limit = 200 * 4 * (2 * (64 + 32 + 96 + 32) + 97)  # 200 tokens: at most 161 once, not after what that drew
    engine = EmbeddedEngine(net, letters)
    sampled(net, engine=engine, limit=limit)
    trace = net.trace
    assert trace is not None
    before = held(trace)
    sampled(net, seed=1, engine=engine, limit=limit)
    assert net.trace is trace
    assert held(trace) == before


def test_adapters_leave_none() -> None:
    """They are folded into the weights that sample, and apart from those that learn."""
    net = toy_model(dtype=torch.float32)
    net.add_lora(2, 4.0, torch.Generator().manual_seed(0))
    engine = EmbeddedEngine(net, letters)
    assert traced(engine) is engine
    assert isinstance(traced(EmbeddedEngine(toy_model(), letters)), Traced)


def test_other_engines_are_as_they_are() -> None:
    engine: Any = object()
    assert traced(engine) is engine


def test_slots_worked_by_hand() -> None:
    """Two rows after one prompt [7, 8]: 7 -> 0, 8 -> 1; then 3 and 4 after it, and 3 once more, which is known."""
    net = toy_model(dtype=torch.float32)
    trace = Trace(net, version(net), 10, 1 << 20)
    assert trace.chain(NOTHING, [7, 8]) == [0, 1]
    assert trace.reading([1, 1, 1], [3, 4, 3]) == [2, 3, 2]
    assert trace.read == 5  # rows were computed for it too
    assert trace.chain(3, [3]) == [5]


def test_gather_from_parts(operations: str) -> None:  # noqa: F811
    parts = [torch.arange(8.0).view(4, 2), torch.arange(8.0, 10.0).view(1, 2), torch.arange(10.0, 16.0).view(3, 2)]
    assert gather(parts, torch.tensor([4, 0, 7, 3, 5])).tolist() == [[8, 9], [0, 1], [14, 15], [6, 7], [10, 11]]
