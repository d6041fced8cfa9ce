"""vLLM behind the engine's contract: the same tokens as the embedded engine, whatever the options, and new weights."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_folder import write_tiny_folder
from torch.testing import assert_close

from posttrain.cli.main import main
from posttrain.core import Groups
from posttrain.core.errors import UserError
from posttrain.policies.causal_lm import Sequences
from posttrain.policies.load import LanguageModel, load_language_model
from posttrain.policies.pretrained import resolve
from posttrain.rollout import vllm_engine
from posttrain.rollout.engine import Completions, Sampling

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
TEXTS = ["What is 2 + 3?", "What is 2 + 30?", "Say it again, and then once more"]
PAIRS = tuple((a, b) for a in range(257) for b in range(a % 6, 257, 6))  # a sixth of all tokens may not follow a token


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("policy"), context=384, head=32)


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_language_model(folder, max_new_tokens=12, precision="fp32", lora=2, engine="vllm")


def both(model: LanguageModel, sampling: Sampling, samples: int = 4) -> tuple[Completions, Completions]:
    """What vLLM and the embedded engine with the policy's present weights make of the same prompts and numbers."""
    prompts = [model.prompter.encode(text) for text in TEXTS]
    own = model.policy.engine(model.prompter.decode)
    ours, theirs = (engine.generate(prompts, samples, sampling, torch.Generator().manual_seed(0))
                    for engine in (own, model.engine))
    return ours, theirs


def check_same(ours: Completions, theirs: Completions, tolerance: float = 1e-4) -> None:
    for name in ("tokens", "lengths", "finished"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert_close(ours.logp, theirs.logp, rtol=0, atol=tolerance)
    assert_close(ours.log_kept, theirs.log_kept, rtol=0, atol=tolerance)


@needs_vllm
@pytest.mark.parametrize("options", [
    {"temperature": 0.0},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 30},
    {"min_p": 0.3, "stop_strings": ("a", "!")},
    {"bad_words": ((3,), (9, 4), *PAIRS)},
    {"logit_bias": ((2, 3.0), (4, -1.0)), "temperature": 1.5, "min_p": 0.05},
], ids=lambda options: "-".join(options))
def test_draws_what_the_embedded_engine_draws(model: LanguageModel, options: dict[str, Any]) -> None:
    ours, theirs = both(model, Sampling(max_new_tokens=12, stop_tokens=tuple(range(200, 220)), **options))
    check_same(ours, theirs)
    assert int(theirs.tokens.max()) < 257
    if "temperature" not in options or options["temperature"] > 0:
        assert len(theirs.lengths.unique()) > 2


@needs_vllm
def test_weights_change_at_an_update_and_not_before(model: LanguageModel) -> None:
    """Every weight moves, the adapters too; the head of this model shares the embedding's."""
    sampling = Sampling(max_new_tokens=12)
    _, before = both(model, sampling)
    kept = {name: p.detach().clone() for name, p in model.policy.module.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.policy.module.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    check_same(before, both(model, sampling)[1], 0.0)
    model.engine.update()
    ours, after = both(model, sampling)
    check_same(ours, after)
    assert not torch.equal(before.tokens, after.tokens)
    with torch.no_grad():
        for name, p in model.policy.module.named_parameters():
            p.copy_(kept[name])
    model.engine.update()
    check_same(before, both(model, sampling)[1], 0.0)


@needs_vllm
def test_a_seed_decides_whatever_fits_at_a_time(model: LanguageModel, folder: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Six rows that grow to two blocks of 128 tokens, in a cache of seven: some are set aside and computed anew."""
    sampling = Sampling(max_new_tokens=125)
    _, first = both(model, sampling, 2)
    assert int(first.lengths.min()) == 125
    assert torch.equal(first.tokens, both(model, sampling, 2)[1].tokens)
    block = 128 * 2 * 2 * 2 * 32 * 4  # tokens × layers × keys and values × heads × width × bytes
    monkeypatch.setattr(vllm_engine, "CACHE_BYTES", 8 * block)  # vLLM keeps one for itself
    small = load_language_model(folder, max_new_tokens=125, precision="fp32", engine="vllm")
    check_same(first, both(small, sampling, 2)[1])


@needs_vllm
def test_what_does_not_fit_is_refused(model: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"max_new_tokens = 380: the longest prompt has \d+ tokens and the context 384"):
        both(model, Sampling(max_new_tokens=380))


@needs_vllm
def test_what_vllm_cannot_run_is_told_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "CACHE_BYTES", 1)  # not one token's keys
    with pytest.raises(UserError, match=r"^engine = 'vllm': vLLM cannot run '.*': .*memory") as caught:
        load_language_model(folder, max_new_tokens=4, precision="fp32", engine="vllm")
    assert "\n" not in str(caught.value)


@needs_vllm
def test_threads_can_still_be_set(model: LanguageModel) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


@needs_vllm
def test_a_run(folder: Path, tmp_path: Path) -> None:
    """A gap as small at the second step as at the first: vLLM has the weights that the first one made."""
    assert main(["train", "grpo", "--engine", "vllm", "--policy", str(folder), "--task", "addition", "--steps", "2",
                 "--prompts", "2", "--samples", "4", "--max-new-tokens", "6", "--eval-problems", "4", "--threads", "1",
                 "--precision", "fp32", "--lr", "1e-2", "--kl-coef", "0.05", "--out", str(tmp_path / "run")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert all(row["logp_gap_max"] < 1e-4 and row["weight"] == pytest.approx(1, abs=1e-4) for row in rows)


@needs_vllm
@pytest.mark.slow
def test_a_real_model() -> None:
    """SmolLM2-135M in fp32: greedy and sampled tokens, and log-probabilities within 1e-4 of the training pass's."""
    model = load_language_model(resolve("smollm2-135m"), max_new_tokens=16, precision="fp32", engine="vllm")
    for temperature in (0.0, 0.8):
        ours, theirs = both(model, Sampling(max_new_tokens=16, temperature=temperature, stop_tokens=model.stop_tokens))
        check_same(ours, theirs)
    prompts = tuple(tuple(model.prompter.encode(text)) for text in TEXTS)
    rows = torch.arange(len(TEXTS)).repeat_interleave(4)
    mask = torch.arange(16) < theirs.lengths[:, None]
    batch = Groups(payload=Sequences(prompts, rows, theirs.tokens, theirs.lengths, 0.8), mask=mask, unit=rows,
                   version=torch.zeros(mask.shape), logp_behaviour=theirs.logp, reward=torch.zeros(len(rows)),
                   finished=theirs.finished, limit=16)
    with torch.no_grad():
        assert_close(model.policy.log_prob(batch), theirs.logp, rtol=0, atol=1e-4)


@pytest.fixture
def without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n == "vllm" or n.startswith("vllm.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "vllm", None)  # as if it were not installed


def test_without_vllm_one_line_says_how_to_get_it(without_vllm: None, folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_language_model(folder, max_new_tokens=4, precision="fp32", engine="vllm")
    assert str(caught.value) == ("engine = 'vllm': vLLM is not installed; pip install 'posttrain[vllm]', "
                                 "or --engine embedded")
