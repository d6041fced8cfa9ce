"""The embedded engine: the right tokens, the right log-probabilities, whatever is computed beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from drawn import as_batch, letters, operations, same  # noqa: F401
from hugging_face import KINDS, tiny
from torch.testing import assert_close
from toy import toy_model

from posttrain.core.errors import UserError
from posttrain.nets.architecture import read_architecture
from posttrain.nets.hf_weights import from_hf
from posttrain.nets.transformer import Transformer
from posttrain.policies.causal_lm import CausalLM
from posttrain.rollout.embedded import EmbeddedEngine
from posttrain.rollout.engine import Completions, Sampling

PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 10], [5, 6, 7, 11, 12, 13, 14, 15, 16]]
STOPPING = Sampling(max_new_tokens=12, stop_tokens=tuple(range(20, 35)))  # about one token in six


def engine(net: Transformer | None = None) -> EmbeddedEngine:
    return EmbeddedEngine(toy_model(dtype=torch.float32) if net is None else net, letters)


def sample(sampling: Sampling = STOPPING, samples: int = 4, seed: int = 0, prompts: list[list[int]] = PROMPTS,
           net: Transformer | None = None) -> Completions:
    return engine(net).generate(prompts, samples, sampling, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_transformers_generate(kind: str) -> None:
    model = tiny(kind, tied=False)
    arch = read_architecture(model.config.to_dict())
    net = Transformer(arch, from_hf(arch, model.state_dict()))
    out = sample(Sampling(max_new_tokens=16, temperature=0.0), samples=1, net=net)
    for prompt, row in zip(PROMPTS, out.tokens.tolist(), strict=True):
        expected = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                                  do_sample=False, max_new_tokens=16)
        assert row == expected[0, len(prompt):].tolist()
    assert len(out.tokens.unique()) > 5  # not one token over and over


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_recorded_log_probabilities_are_those_of_the_training_pass(temperature: float) -> None:
    net = toy_model(dtype=torch.float32)
    out = sample(Sampling(max_new_tokens=12, temperature=temperature, top_k=40, stop_tokens=STOPPING.stop_tokens),
                 net=net)
    scored = CausalLM(net, None).log_prob(as_batch(PROMPTS, out, 4, temperature))
    assert len(out.lengths.unique()) > 3
    assert_close(out.logp, scored.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_records_the_log_probabilities_of_its_training_pass(kind: str) -> None:
    """Long after every window has left the prompt behind, with rows that move to the places of those that ended."""
    model = tiny(kind, tied=True)
    arch = read_architecture(model.config.to_dict())
    net = Transformer(arch, from_hf(arch, model.state_dict()))
    out = sample(replace(STOPPING, max_new_tokens=40, temperature=1.3), net=net)
    scored = CausalLM(net, None).log_prob(as_batch(PROMPTS, out, 4, 1.3))
    assert len(out.lengths.unique()) > 3
    assert_close(out.logp, scored.detach(), rtol=0, atol=1e-5)


def test_adapters_are_sampled_from_too() -> None:
    net = toy_model(dtype=torch.float32)
    net.add_lora(rank=2, alpha=4.0, generator=torch.Generator().manual_seed(0))
    for name, parameter in net.lora.named_parameters():
        if name.endswith(".1"):  # B, which begins as zeros
            parameter.data.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.2)
    out = sample(net=net)
    assert_close(out.logp, CausalLM(net, None).log_prob(as_batch(PROMPTS, out, 4, 1.0)).detach(), rtol=0, atol=1e-5)
    assert not torch.equal(out.tokens, sample().tokens)


def test_update_takes_over_new_weights() -> None:
    net = toy_model(dtype=torch.float32)
    running = engine(net)
    with torch.no_grad():
        for own, new in zip(net.weights, toy_model(seed=1, dtype=torch.float32).weights, strict=True):
            own.copy_(new)
    running.update()
    same(running.generate(PROMPTS, 4, STOPPING, torch.Generator().manual_seed(0)), sample(net=net))


def test_bf16_weights() -> None:
    net = toy_model(dtype=torch.bfloat16)
    out = sample(net=net)
    scored = CausalLM(net, None).log_prob(as_batch(PROMPTS, out, 4, 1.0)).detach()
    assert out.logp.dtype == torch.float32
    assert (out.logp - scored).abs().max() < 0.1  # bf16 has three digits, and logits lie within ±5


def test_seed_decides() -> None:
    a, b, other = sample(seed=3), sample(seed=3), sample(seed=4)
    assert torch.equal(a.tokens, b.tokens)
    assert torch.equal(a.logp, b.logp)
    assert not torch.equal(a.tokens, other.tokens)


def test_a_row_does_not_depend_on_the_others() -> None:
    """The first prompts' rows use the first uniform numbers of the stream, so fewer prompts leave them the same."""
    whole = sample()
    for count in (1, 2):
        part = sample(prompts=PROMPTS[:count])
        rows = slice(0, 4 * count)
        same(part, Completions(whole.tokens[rows], whole.logp[rows], whole.log_kept[rows], whole.lengths[rows],
                               whole.finished[rows]))


@pytest.mark.parametrize("rows", [1, 5, 11])
def test_a_budget_changes_nothing(rows: int) -> None:
    small = engine()
    while small.rows_at_once(3, 4, 9, STOPPING) > rows:
        small.keep_to(small.cache_bytes * 31 // 32)
    assert small.rows_at_once(3, 4, 9, STOPPING) == rows
    same(small.generate(PROMPTS, 4, STOPPING, torch.Generator().manual_seed(0)), sample())


def test_a_budget_that_holds_no_row_is_one_clear_error() -> None:
    small = engine()
    small.keep_to(1000)
    for ask in (lambda: small.generate(PROMPTS, 4, STOPPING, torch.Generator()),
                lambda: small.rows_at_once(3, 4, 9, STOPPING)):
        with pytest.raises(UserError, match="cache_bytes = 1000: one row of 12 new tokens after a prompt of 9 takes"):
            ask()


def test_stop_tokens_end_a_row_and_belong_to_it() -> None:
    out = sample()
    assert out.finished.any()
    assert not out.finished.all()
    for row, length, finished in zip(out.tokens.tolist(), out.lengths.tolist(), out.finished.tolist(), strict=True):
        stops = [t in STOPPING.stop_tokens for t in row[:length]]
        assert not any(stops[:-1])
        assert stops[-1] == finished
        assert finished or length == 12
        assert row[length:] == [0] * (12 - length)
    beyond = torch.arange(12) >= out.lengths[:, None]
    assert (out.logp[beyond] == 0).all()
    assert (out.logp[~beyond] < 0).all()


def test_stop_tokens_do_not_change_what_comes_before_them() -> None:
    free, stopped = sample(Sampling(max_new_tokens=12)), sample()
    assert (free.lengths == 12).all()
    assert not free.finished.any()
    own = torch.arange(12) < stopped.lengths[:, None]
    assert torch.equal(torch.where(own, free.tokens, 0), stopped.tokens)


def test_stop_strings_end_a_row_at_the_token_that_completes_one() -> None:
    free = sample(Sampling(max_new_tokens=12))
    text = letters(free.tokens[5].tolist())
    stop = text[3:5]
    assert stop not in text[:4]
    out = sample(Sampling(max_new_tokens=12, stop_strings=(stop, "never this")))
    assert int(out.lengths[5]) == 5
    assert bool(out.finished[5])
    for row, length in zip(out.tokens.tolist(), out.lengths.tolist(), strict=True):
        assert stop not in letters(row[: length - 1])


def test_one_token_and_one_prompt() -> None:
    out = sample(Sampling(max_new_tokens=1), samples=1, prompts=[[7]])
    assert out.tokens.shape == (1, 1)
    assert out.lengths.tolist() == [1]
    assert not out.finished.any()


def test_equal_prompts_and_prefixes_of_each_other() -> None:
    prompts = [[5, 6, 7], [5, 6, 7], [5, 6, 7, 8, 9]]
    greedy = Sampling(max_new_tokens=6, temperature=0.0)
    out = sample(greedy, samples=1, prompts=prompts)
    assert torch.equal(out.tokens[0], out.tokens[1])
    for i, prompt in enumerate(prompts):
        assert torch.equal(sample(greedy, samples=1, prompts=[prompt]).tokens[0], out.tokens[i])


def test_context_overflow_is_one_clear_error() -> None:
    with pytest.raises(UserError) as caught:
        sample(Sampling(max_new_tokens=120))
    assert str(caught.value) == ("max_new_tokens = 120: the longest prompt has 9 tokens and the context 128; "
                                 "at most 119 new tokens fit")
    assert sample(Sampling(max_new_tokens=119), samples=1).tokens.shape == (3, 119)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_with_bad_words_is_transformers_generate(kind: str) -> None:
    """Words made of what would come without them, one across the prompt's end, so that each one bites."""
    model = tiny(kind, tied=True)
    arch = read_architecture(model.config.to_dict())
    net = Transformer(arch, from_hf(arch, model.state_dict()))
    greedy = Sampling(max_new_tokens=16, temperature=0.0)
    free = sample(greedy, samples=1, net=net).tokens.tolist()
    words = ((PROMPTS[0][-1], free[0][0]), (free[1][5],), tuple(free[2][2:5]), tuple(free[2][9:11]))
    out = sample(replace(greedy, bad_words=words), samples=1, net=net).tokens.tolist()
    for prompt, row, before in zip(PROMPTS, out, free, strict=True):
        expected = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                                  do_sample=False, max_new_tokens=16, bad_words_ids=[list(w) for w in words])
        assert row == expected[0, len(prompt):].tolist() != before


def test_biased_and_truncated_samples_report_the_training_pass() -> None:
    """log p is the model's own of every token, whatever shaped q; and no bad word is there."""
    net = toy_model(dtype=torch.float32)
    words = ((40,), (9, 3), *((a, b) for a in range(20) for b in range(20)))
    sampling = Sampling(max_new_tokens=12, temperature=0.8, min_p=0.02, top_p=0.95, bad_words=words,
                        logit_bias=((3, 1.5), (4, -2.0)), stop_tokens=STOPPING.stop_tokens)
    out = sample(sampling, net=net, samples=8)
    scored = CausalLM(net, None).log_prob(as_batch(PROMPTS, out, 8, 0.8))
    assert_close(out.logp, scored.detach(), rtol=0, atol=1e-5)
    for row, length, i in zip(out.tokens.tolist(), out.lengths.tolist(), range(24), strict=True):
        text = PROMPTS[i // 8] + row[:length]
        new = range(len(PROMPTS[i // 8]), len(text))
        assert not any(tuple(text[end + 1 - len(w): end + 1]) == w for end in new for w in words)
    own = torch.arange(12) < out.lengths[:, None]
    assert (out.log_kept[own] != 0).all()
    assert (out.log_kept[~own] == 0).all()


def test_bf16_rounds_as_the_training_pass_does(operations: str) -> None:  # noqa: F811
    """Both add what a token draws from its ancestors and its own row in one order, and compiled ones by one kernel."""
    net = toy_model(dtype=torch.bfloat16)
    out = sample(Sampling(max_new_tokens=12), net=net, samples=8)
    gap = (out.logp - CausalLM(net, None).log_prob(as_batch(PROMPTS, out, 8, 1.0)).detach()).abs()
    agree = float((gap == 0).float().mean())
    assert agree == 1 if operations == "compiled" else agree > 0.9
