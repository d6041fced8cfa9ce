"""Continuous batching: every row as if it were alone, nothing computed twice, and a budget that is kept."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from drawn import WAYS, letters, operations, same  # noqa: F401
from hugging_face import KINDS, tiny
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toy import toy_model

from posttrain.core.errors import UserError
from posttrain.nets.architecture import read_architecture
from posttrain.nets.hf_weights import from_hf
from posttrain.nets.transformer import Transformer
from posttrain.nets.tree import Tree, build_level
from posttrain.rollout import schedule
from posttrain.rollout.cache import Shape
from posttrain.rollout.engine import Completions, Sampling, empty_completions
from posttrain.rollout.packed import Packed
from posttrain.rollout.sampler import draw, drawn_bytes, endings
from posttrain.rollout.schedule import Schedule

PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 10], [5, 6, 7, 11, 12, 13, 14, 15, 16], [5, 6, 7, 20]]
RAGGED = [[5], [5, *range(40)], [5, *range(30, 90), *range(30)], [5, 6]]
SAMPLES = 3
ROWS = SAMPLES * len(PROMPTS)
STOPPING = Sampling(max_new_tokens=12, stop_tokens=tuple(range(20, 35)))  # about one token in six


@cache
def toy() -> Transformer:
    return toy_model(dtype=torch.float32)


@cache
def like(kind: str) -> Transformer:
    model = tiny(kind, tied=True)
    arch = read_architecture(model.config.to_dict())
    return Transformer(arch, from_hf(arch, model.state_dict()))


def uniform(rows: int, sampling: Sampling) -> Tensor:
    return torch.rand(rows, sampling.max_new_tokens, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def alone(net: Transformer, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling) -> Completions:
    """Every row by itself and without a cache: the whole sequence again for each token."""
    numbers = uniform(len(prompts) * samples, sampling)
    out = empty_completions(torch.zeros(numbers.shape, dtype=torch.long))
    for row in range(len(numbers)):
        ids = list(prompts[row // samples])
        for t in range(sampling.max_new_tokens):
            level, _ = build_level([ids], [0])
            hidden = net(Tree(torch.tensor(ids), (level,)))[-1:]
            token, logp, log_kept = draw(hidden @ net.head.T, numbers[row, t : t + 1], sampling,
                                         endings([ids], sampling.memory))
            ids.append(int(token))
            out.tokens[row, t], out.logp[row, t], out.log_kept[row, t] = token[0], logp[0], log_kept[0]
            text = letters(ids[len(prompts[row // samples]):])
            if int(token) in sampling.stop_tokens or any(s in text for s in sampling.stop_strings):
                out.lengths[row], out.finished[row] = t + 1, True
                break
    return out


@cache
def expected() -> Completions:
    return alone(toy(), PROMPTS, SAMPLES, STOPPING)


class Counting(Packed):
    """How many tokens went through the layers."""

    tokens = 0

    def linear(self, x: Tensor, name: str) -> Tensor:
        self.tokens += len(x) * (name == "0.qkv")
        return super().linear(x, name)


class Watched(Schedule):
    """A schedule that remembers who was alive at each step, and how many tokens went through the layers."""

    by: Counting

    def __init__(self, net: Transformer, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling,
                 budget: int) -> None:
        self.steps: list[list[tuple[int, int]]] = []  # (row, how many tokens it has) by place
        self.ready: list[int] = []  # rows that could have joined at each step
        self.most = 0  # rows alive at a time

        self.by = Counting(net)
        super().__init__(net, self.by, letters, prompts, samples, sampling,
                         uniform(len(prompts) * samples, sampling), budget)

    @property
    def tokens(self) -> int:
        return self.by.tokens

    def _regroup(self) -> None:
        self.most = max(self.most, len(self.row))
        super()._regroup()

    def _step(self) -> Tensor:
        self.steps.append(list(zip(self.row.tolist(), self.drawn.tolist(), strict=True)))
        self.ready.append(self._ready())
        return super()._step()


@torch.no_grad()
def run(budget: int, net: Transformer | None = None, prompts: Sequence[Sequence[int]] = PROMPTS,
        samples: int = SAMPLES, sampling: Sampling = STOPPING) -> tuple[Completions, Watched]:
    watched = Watched(net or toy(), prompts, samples, sampling, budget)
    return watched.run(), watched


def shape(net: Transformer, prompts: Sequence[Sequence[int]] = PROMPTS, sampling: Sampling = STOPPING,
          shared: int = 3) -> Shape:
    return Shape(net.arch, net.head.dtype, shared, max(map(len, prompts)) - shared, sampling.max_new_tokens,
                 drawn_bytes(sampling, net.head))


def budget_for(rows: int, whole: Shape, samples: int = SAMPLES, prompts: int = len(PROMPTS)) -> int:
    """The least with which that many rows live side by side."""
    return whole.bytes(rows, min(prompts, rows, 2 * -(-rows // samples)))


def check_work(out: Completions, watched: Watched, prompts: Sequence[Sequence[int]], shared: int) -> None:
    """Through the layers went what all prompts share, once; the rest of each, once; each row's tokens but its last."""
    rests = sum(len(p) - shared for p in prompts)
    assert watched.tokens == shared + rests + int((out.lengths - 1).sum())


@pytest.mark.parametrize("rows", range(1, ROWS + 1))
def test_every_row_is_as_if_alone_at_every_budget(rows: int) -> None:
    budget = budget_for(rows, shape(toy()))
    out, watched = run(budget)
    same(out, expected())
    assert len(out.lengths.unique()) > 4  # short and long ones
    assert out.finished.any() and not out.finished.all()
    check_work(out, watched, PROMPTS, 3)
    room, cache_ = watched.cache.room, watched.cache
    assert room.rows == rows == watched.most
    assert cache_.bytes < cache_.shape.bytes(*room) <= budget


@pytest.mark.parametrize("rows", [3, 5, 8])
def test_rows_join_while_others_run_and_take_the_places_of_those_that_left(rows: int) -> None:
    out, watched = run(budget_for(rows, shape(toy())))
    born = {row: i for i, step in reversed(list(enumerate(watched.steps))) for row, _ in step}
    joins = {i for i in born.values() if i}
    assert any(min(drawn for _, drawn in watched.steps[i]) == 1 < max(drawn for _, drawn in watched.steps[i]) - 1
               for i in joins)  # a row with one token beside one that has three or more
    # Nobody who could join waits for more than JOIN of the places: 8 · 1/8 = 1 place, which is filled at once.
    assert set(watched.ready) == {0}
    # Fewer steps than waves of `rows` rows would take, each as long as its longest.
    lengths = (out.lengths - 1).split(rows)
    assert len(watched.steps) < sum(int(wave.max()) for wave in lengths)


def test_few_free_places_wait_for_more() -> None:
    """16 places: rows join once 16 · 1/8 = 2 are free, so at most one stays empty while rows wait."""
    whole = shape(toy())
    out, watched = run(budget_for(16, whole, samples=12), samples=12)
    assert max(watched.ready) == 1
    check_work(out, watched, PROMPTS, 3)
    same(out, run(1 << 30, samples=12)[0])


def test_prompts_that_no_row_needs_make_room() -> None:
    """At one row at a time one prompt is held at a time, and each was computed once (`check_work`)."""
    out, watched = run(budget_for(1, shape(toy())))
    assert watched.cache.prompts.shape[2] == 1
    same(out, expected())
    check_work(out, watched, PROMPTS, 3)


@pytest.mark.parametrize("rows", [1, 2, 7, 12])
def test_ragged_prompts_in_pieces(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """One token beside ninety-one; one product of queries and keys takes a few queries at a time."""
    monkeypatch.setattr(schedule, "PREFILL_SCORES", 4 * 91 * 10)  # 10 queries of 4 heads to the longest prompt
    monkeypatch.setattr(schedule, "PREFILL_TOKENS", 200)  # two prompts of that length
    out, watched = run(budget_for(rows, shape(toy(), RAGGED, shared=0)), prompts=RAGGED)
    same(out, ragged())
    check_work(out, watched, RAGGED, 0)


@cache
def ragged() -> Completions:
    return alone(toy(), RAGGED, SAMPLES, STOPPING)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 5, ROWS])
def test_windows_and_all_else_that_a_model_may_have(kind: str, rows: int) -> None:
    """Windows are four tokens wide here, so that they end inside prompts, between them and a row, and inside rows."""
    net = like(kind)
    out, _ = run(budget_for(rows, shape(net)), net)
    same(out, of_kind(kind))


@cache
def of_kind(kind: str) -> Completions:
    return alone(like(kind), PROMPTS, SAMPLES, STOPPING)


@pytest.mark.parametrize("options", WAYS, ids=lambda options: "-".join(options))
def test_every_way_of_drawing(options: dict[str, Any]) -> None:
    sampling = replace(STOPPING, **options)
    reference = alone(toy(), PROMPTS, SAMPLES, sampling)
    assert len(reference.lengths.unique()) > 2
    for rows in (1, 4, ROWS):
        same(run(budget_for(rows, shape(toy(), sampling=sampling)), sampling=sampling)[0], reference)


def test_the_same_again() -> None:
    budget = budget_for(5, shape(toy()))
    (a, _), (b, _) = run(budget), run(budget)
    for name in ("tokens", "logp", "log_kept", "lengths", "finished"):
        assert torch.equal(getattr(a, name), getattr(b, name))


def test_what_all_prompts_share_is_kept_once() -> None:
    _, watched = run(1 << 30)
    assert watched.cache.root.shape[2:] == (1, 2, 3, 8)  # one place, two heads, three tokens
    assert watched.cache.prompts.shape[2:] == (4, 2, 6, 8)  # and of the longest prompt the six after them
    one, own = [[5, 6, 7, 8]], Sampling(max_new_tokens=3)
    assert run(1 << 30, prompts=one, sampling=own)[1].cache.root.shape[4] == 3  # a prompt keeps one token for itself


def test_not_a_single_row_fits() -> None:
    least = shape(toy()).bytes(1, 1)
    with pytest.raises(UserError) as caught:
        run(least - 1)
    assert str(caught.value) == f"cache_bytes = {least - 1}: one row of 12 new tokens after a prompt of 9 takes {least}"


class Memory(TorchDispatchMode):
    """Bytes of the tensors that were made inside and are alive, and the most there ever were."""

    def __init__(self, net: Transformer) -> None:
        super().__init__()
        self.before = {x.untyped_storage()._cdata for x in (*net.parameters(), *net.buffers())}
        self.sizes: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, Tensor) and not x.is_mkldnn:  # weights that were laid out anew are of no call
                self._follow(x.untyped_storage())
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.sizes and key not in self.before:
            self.sizes[key] = storage.nbytes()
            weakref.finalize(storage, self.sizes.pop, key, None)
        self.most = max(self.most, sum(self.sizes.values()))


@pytest.mark.parametrize("options", [
    {}, {"top_p": 0.9}, {"top_k": 50, "top_p": 0.9, "min_p": 0.01}, {"min_p": 0.1},
    {"logit_bias": ((3, 1.0),), "temperature": 0.7}, {"logit_bias": ((3, 1.0),), "bad_words": ((4,),), "top_p": 0.9},
], ids=lambda options: "-".join(options))
@pytest.mark.parametrize("rows", [4, 16])
def test_tensors_alive_stay_within_the_budget(rows: int, options: dict[str, Any]) -> None:
    """With the proportions of a language model: a vocabulary far wider than its layers."""
    net = toy_model(dtype=torch.float32, vocabulary=5003)
    sampling = Sampling(max_new_tokens=16, stop_tokens=tuple(range(600)), **options)
    prompts = [[i, i + 1, i + 2] for i in range(4)]
    budget = budget_for(rows, shape(net, prompts, sampling, shared=0), 4, 4)
    with Memory(net) as memory:
        _, watched = run(budget, net, prompts, 4, sampling)
    kept = 16 * 16 * (8 + 4 + 4 + 4)  # what comes in and goes out: tokens, uniform numbers, log p, log p − log q
    assert watched.cache.room.rows == rows
    assert 0.8 * budget < memory.most <= budget + kept
