"""Architectures without a fast path: what transformers' own model samples, scores, learns and saves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import batch_of, own_model, save_model

from posttrain.core.errors import UserError
from posttrain.methods.groups.grpo import GRPO
from posttrain.policies.load import LanguageModel, load_language_model
from posttrain.policies.transformers_lm import TransformersLM
from posttrain.rollout.engine import Completions, Sampling
from posttrain.rollout.transformers_engine import TransformersEngine, waves
from posttrain.train.learner import Learner
from posttrain.train.loop import Pace
from posttrain.train.optim import FlatAdamW

KINDS = ("gpt2", "gpt_neox", "gemma2", "phi", "yarn", "bloom", "mamba")
PROMPTS = [[0, 11], [0, 5, 6, 7, 8, 9, 10], [0, 4, 4]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: save_model(root / kind, kind) for kind in KINDS}


def load(folder: Path, **options: Any) -> LanguageModel:
    settings: dict[str, Any] = {"max_new_tokens": 8, "precision": "fp32"} | options
    return load_language_model(folder, **settings)


def sample(model: LanguageModel, prompts: list[list[int]] = PROMPTS, **options: Any) -> Completions:
    settings: dict[str, Any] = {"max_new_tokens": 8, "temperature": 0.8, "stop_tokens": model.stop_tokens} | options
    return model.engine.generate(prompts, 3, Sampling(**settings), torch.Generator().manual_seed(0))


def own_log_probs(model: Any, prompt: list[int], completion: list[int], temperature: float) -> Tensor:
    """[N, V]: the model run over one whole sequence, with nothing around it."""
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([prompt + completion]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_models_own(kind: str, folders: dict[str, Path]) -> None:
    model, own = load(folders[kind]), own_model(folders[kind])
    assert isinstance(model.policy, TransformersLM)
    lengths = torch.tensor([6, 1, 3, 4, 5, 6])
    tokens = torch.arange(36).view(6, 6) % 35 + 2
    batch = batch_of(PROMPTS, 2, tokens, lengths, temperature=0.7)
    batch.mask[0, 2] = False  # a token of a tool
    score = model.policy.score(batch, entropy=True)
    assert score.entropy is not None
    for row, length in enumerate(lengths.tolist()):
        logp = own_log_probs(own, PROMPTS[row // 2], tokens[row, :length].tolist(), 0.7)
        mask, chosen = batch.mask[row, :length], logp[range(length), tokens[row, :length]]
        entropy = -(logp.exp() * logp).sum(1)
        torch.testing.assert_close(score.log_prob[row, :length], chosen * mask, rtol=0, atol=2e-5)
        torch.testing.assert_close(score.entropy[row, :length], entropy * mask, rtol=0, atol=2e-5)
    assert not score.log_prob[~batch.mask].any()


@pytest.mark.parametrize("kind", KINDS)
def test_samples_and_their_log_probs(kind: str, folders: dict[str, Path]) -> None:
    model = load(folders[kind])
    out = sample(model)
    with torch.no_grad():
        scored = model.policy.log_prob(batch_of(PROMPTS, 3, out.tokens, out.lengths, 0.8))
    torch.testing.assert_close(out.logp, scored, rtol=0, atol=2e-5)
    assert torch.equal(out.tokens, sample(model).tokens)
    beyond = torch.arange(8) >= out.lengths[:, None]
    assert not out.tokens[beyond].any()
    assert torch.equal(out.finished, (out.tokens == 1).any(1))  # 1 is the token that ends a text
    alone = sample(model, PROMPTS[:1])  # the same random numbers, without the padding that company brings
    assert torch.equal(alone.tokens, out.tokens[:3])


@pytest.mark.parametrize("kind", KINDS)
def test_likeliest_tokens_are_those_of_generate(kind: str, folders: dict[str, Path]) -> None:
    model, own = load(folders[kind]), own_model(folders[kind])
    out = sample(model, temperature=0.0)
    for i, prompt in enumerate(PROMPTS):
        theirs = own.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False,
                              max_new_tokens=8, eos_token_id=1)[0, len(prompt):]
        assert out.tokens[3 * i, : len(theirs)].tolist() == theirs.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_favours_what_was_rewarded(kind: str, folders: dict[str, Path]) -> None:
    model = load(folders[kind])
    tokens = torch.tensor([[3, 4, 5], [6, 7, 8]])
    batch = batch_of([[0, 9]], 2, tokens, torch.tensor([3, 3]), reward=torch.tensor([1.0, 0.0]))
    before = model.policy.log_prob(batch).detach().sum(1)
    method = GRPO()
    learner = Learner(method, {"policy": model.policy, "reference": model.policy.initial()}, FlatAdamW)
    _, metrics, _ = learner.update(batch, Pace(1e-3, 1.0), torch.Generator())
    after = model.policy.log_prob(batch).detach().sum(1)
    assert metrics["grad_norm"] > 0
    assert metrics["ratio"] == 1.0
    assert abs(metrics["loss/kl"]) < 1e-10  # the policy has not left the reference yet
    assert after[0] > before[0]
    assert after[1] < before[1]
    with torch.no_grad():
        torch.testing.assert_close(learner.models.reference.log_prob(batch).sum(1), before, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_models_say_the_same(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    model = load(folders[kind])
    with torch.no_grad():
        for weight in model.policy.module.parameters():
            weight.add_(0.01)
    target = model.policy.save(tmp_path / "final")
    ids = torch.tensor([[0, 5, 6, 7, 8]])
    with torch.no_grad():
        kept = own_model(target)(ids).logits
        assert torch.equal(kept, model.policy.module(ids).logits)
        first = own_model(folders[kind])(ids).logits
    assert not torch.allclose(kept, first)
    assert load(target).prompter.encode("w5 w6") == [5, 6]
    with pytest.raises(UserError, match="exists already"):
        model.policy.save(target)


def test_bf16(folders: dict[str, Path]) -> None:
    model = load(folders["gpt_neox"], precision="bf16")
    out = sample(model)
    optimizer = FlatAdamW(model.policy.module)
    batch = batch_of(PROMPTS, 3, out.tokens, out.lengths, 0.8)
    logp = model.policy.log_prob(batch)
    assert model.precision == "bf16"
    assert (logp - out.logp).abs().max() < 0.3  # bf16 keeps 8 bits: logits near 10 are known to about 0.05
    logp.sum().backward()
    assert optimizer.step(1e-3, 1.0) > 0


def test_stop_strings_and_the_context(folders: dict[str, Path]) -> None:
    model = load(folders["gpt2"])
    two_words = model.prompter.decode(sample(model).tokens[0, :2].tolist())
    out = sample(model, stop_strings=(two_words,))
    assert out.lengths[0] == 2
    assert out.finished[0]
    with pytest.raises(UserError, match="at most 57 new tokens"):  # 64 − 7
        sample(model, max_new_tokens=58)


def test_a_recurrent_state_is_not_padded(folders: dict[str, Path]) -> None:
    engines = [load(folders[kind]).engine for kind in ("mamba", "gemma2")]
    assert [engine.pads for engine in engines if isinstance(engine, TransformersEngine)] == [False, True]


def test_waves() -> None:
    # Lengths in order: 2 (prompt 1), 3 (0), 3 (3), 5 (2); at most two at a time.
    assert list(waves([3, 2, 5, 3], 2, mixed=True)) == [[1, 0], [3, 2]]
    assert list(waves([3, 2, 5, 3], 2, mixed=False)) == [[1], [0, 3], [2]]


def test_split_counts_padding(folders: dict[str, Path]) -> None:
    # Rows of prompt + completion: 2+6, 2+1 | 7+3, 7+4 | 3+5, 3+6 = 8, 3 | 10, 11 | 8, 9 tokens; at most 24.
    # Rows: {0, 1} 2 × 8; a third of 10 would make 30.  {2, 3} 2 × 11 = 22; a third 33.  {4, 5} 2 × 9 = 18.
    # Units of two at most 16 tokens: 2 × 8 = 16 fits alone; 22 and 18 do not, but stay whole.
    batch = batch_of(PROMPTS, 2, torch.full((6, 6), 2), torch.tensor([6, 1, 3, 4, 5, 6]))
    policy = load(folders["gpt2"], tokens_per_micro_batch=24).policy
    assert [part.tolist() for part in policy.split(batch, whole_units=False)] == [[0, 1], [2, 3], [4, 5]]
    policy.budget = 16
    assert [part.tolist() for part in policy.split(batch, whole_units=True)] == [[0, 1], [2, 3], [4, 5]]
    assert [part.tolist() for part in policy.split(batch, whole_units=False)] == [[0, 1], [2], [3], [4], [5]]
    with torch.no_grad():
        in_parts = policy.log_prob(batch)
        policy.budget = 10_000
        torch.testing.assert_close(policy.log_prob(batch), in_parts, rtol=0, atol=2e-5)
