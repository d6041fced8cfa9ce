"""Adapters: what they change, what they cost, and that peft reads them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import batch_of, own_model, save_model
from torch import Tensor

from posttrain.core.errors import UserError
from posttrain.methods.groups.grpo import GRPO
from posttrain.policies.load import LanguageModel, load_language_model
from posttrain.rollout.engine import Sampling
from posttrain.train.learner import Learner
from posttrain.train.loop import Pace
from posttrain.train.optim import FlatAdamW

FAST, SLOW = ("llama", "qwen2", "gemma3_text", "phi3"), ("gpt2", "gpt_neox", "gemma2")
ALL = FAST + SLOW
BATCH = batch_of([[0, 9]], 2, torch.tensor([[3, 4, 5], [6, 7, 8]]), torch.tensor([3, 3]),
                 reward=torch.tensor([1.0, 0.0]))
IDS = torch.tensor([[0, 5, 6, 7, 8]])


def load(folder: Path, **options: Any) -> LanguageModel:
    settings: dict[str, Any] = {"max_new_tokens": 8, "precision": "fp32", "lora": 2, "seed": 3} | options
    return load_language_model(folder, **settings)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    out: Tensor = model.eval()(IDS).logits
    return out


def train(model: LanguageModel, steps: int = 2) -> dict[str, float]:
    """A few updates towards the first completion, with the adapters-off reference."""
    method = GRPO()
    learner = Learner(method, {"policy": model.policy, "reference": model.policy.initial()}, FlatAdamW)
    for _ in range(steps):
        _, metrics, _ = learner.update(BATCH, Pace(0.02, 1.0), torch.Generator())
    model.engine.update()
    return metrics


@pytest.mark.parametrize("kind", ALL)
def test_only_adapters_learn_and_the_reference_is_what_is_under_them(kind: str, tmp_path: Path) -> None:
    model = load(save_model(tmp_path / "m", kind))
    weights = dict(model.policy.module.named_parameters())
    trained = {name for name, w in weights.items() if w.requires_grad}
    frozen = {name: w.clone() for name, w in weights.items() if name not in trained}
    with torch.no_grad():
        before = model.policy.log_prob(BATCH)
    metrics = train(model)
    assert metrics["loss/kl"] > 0  # the second update starts away from the reference
    with torch.no_grad():
        after, reference = model.policy.log_prob(BATCH).sum(1), model.policy.initial().log_prob(BATCH)
    torch.testing.assert_close(reference, before, rtol=0, atol=1e-5)
    assert after[0] > before[0].sum()
    assert trained
    assert all("lora" in name for name in trained)
    assert all(torch.equal(w, weights[name]) for name, w in frozen.items())
    assert model.policy.initial().module is model.policy.module  # no second copy
    assert all(weights[name].requires_grad for name in trained)  # also after the reference switched them off


@pytest.mark.parametrize("kind", ALL)
def test_samples_come_from_the_adapted_model(kind: str, tmp_path: Path) -> None:
    model = load(save_model(tmp_path / "m", kind))
    train(model)
    out = model.engine.generate([[0, 9]], 2, Sampling(max_new_tokens=4), torch.Generator().manual_seed(0))
    with torch.no_grad():
        scored = model.policy.log_prob(batch_of([[0, 9]], 2, out.tokens, out.lengths))
    torch.testing.assert_close(out.logp, scored, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ALL)
def test_peft_on_the_base_model_equals_the_merged_folder(kind: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    source = save_model(tmp_path / "m", kind)
    model = load(source)
    train(model)
    final = model.policy.save(tmp_path / "final")
    merged = logits(own_model(final))
    base = own_model(source)
    plain = logits(base)
    adapted = logits(peft.PeftModel.from_pretrained(base, str(final / "adapter")))
    torch.testing.assert_close(adapted, merged, rtol=0, atol=2e-5)
    assert (merged - plain).abs().max() > 0.01
    again = load(final, lora=0).policy  # the folder is a policy like any other
    with torch.no_grad():
        torch.testing.assert_close(again.log_prob(BATCH), model.policy.log_prob(BATCH), rtol=0, atol=2e-5)


def test_the_adapter_folder_of_the_fast_path(tmp_path: Path) -> None:
    source = save_model(tmp_path / "m", "qwen2")
    final = load(source).policy.save(tmp_path / "final")
    config = json.loads((final / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (2, 4.0, str(source))
    assert config["target_modules"] == [f"{part}_proj" for part in ("down", "gate", "k", "o", "q", "up", "v")]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_adapters_depend_on_the_seed_alone(kind: str, tmp_path: Path) -> None:
    source = save_model(tmp_path / "m", kind)
    state = torch.get_rng_state()
    first, second, other = (dict(load(source, seed=s).policy.module.named_parameters()) for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(w, second[name]) for name, w in first.items())
    assert any(not torch.equal(w, other[name]) for name, w in first.items())


def test_without_peft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # what an import meets when a package is not there
    with pytest.raises(UserError, match=r"need the peft library; pip install 'posttrain\[lora\]'"):
        load(save_model(tmp_path / "slow", "gpt2"))
    load(save_model(tmp_path / "fast", "llama")).policy.save(tmp_path / "final")
