"""The contract of LLaDA-like models, on a random BERT of a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import make_tokenizer
from torch import nn
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from posttrain.core.errors import UserError
from posttrain.policies.causal_lm import Sequences
from posttrain.policies.denoiser import NEVER, TransformersDenoiser
from posttrain.policies.load import load_language_model
from posttrain.policies.masked_diffusion_lm import Estimate, MaskedDiffusionLM
from posttrain.rollout.engine import Sampling
from posttrain.rollout.unmasking import Unmasking

MASK_TOKEN = 36


def bert() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = BertForMaskedLM(BertConfig(
            vocab_size=37, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
            max_position_embeddings=64, eos_token_id=1, bos_token_id=0, pad_token_id=1))
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.2)
    return model


class Plain(nn.Module):
    """forward(ids) and nothing else, as LLaDA's own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner, self.config = model, model.config

    def forward(self, ids: torch.Tensor) -> Any:
        return self.inner(ids)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    bert().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"mask_token_id": MASK_TOKEN}))
    return folder


IDS = torch.tensor([[5, 6, MASK_TOKEN, MASK_TOKEN, 0, 0], [7, 8, 9, 10, MASK_TOKEN, 11]])
PRESENT = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
ROW, COLUMN = torch.tensor([1, 0, 0]), torch.tensor([4, 2, 3])


@pytest.mark.parametrize("plain", [False, True])
def test_predictions_are_the_models_own(plain: bool) -> None:
    model = bert()
    net = TransformersDenoiser(Plain(model) if plain else model, MASK_TOKEN)
    assert net.masks_padding is not plain
    found = net.logits(IDS, PRESENT, ROW, COLUMN)
    with torch.no_grad():
        one, two = model.eval()(IDS[:1, :4]).logits[0], model(IDS[1:]).logits[0]
    expected = torch.stack([two[4], one[2], one[3]])
    expected[:, MASK_TOKEN] = NEVER
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=1e-5)
    found[:, :MASK_TOKEN].sum().backward()
    assert model.bert.embeddings.word_embeddings.weight.grad.norm() > 0


def test_a_causal_model_and_a_foreign_mask_are_refused() -> None:
    causal = GPT2LMHeadModel(GPT2Config(vocab_size=37, n_embd=16, n_layer=1, n_head=2, n_positions=64))
    with pytest.raises(UserError, match="GPT2LMHeadModel does not see later tokens"):
        TransformersDenoiser(causal, MASK_TOKEN)
    with pytest.raises(UserError, match="mask_token_id = 37 is not of its vocabulary, which has 37"):
        TransformersDenoiser(bert(), 37)


def test_a_folder_is_sampled_scored_and_saved(folder: Path, tmp_path: Path) -> None:
    model = load_language_model(folder, max_new_tokens=4, precision="fp32", estimate=Estimate("trajectory"),
                                unmasking=Unmasking(order="random"))
    policy = model.policy
    assert isinstance(policy, MaskedDiffusionLM)
    prompts = [[5, 6], [7, 8, 9]]
    out = model.engine.generate(prompts, 2, Sampling(max_new_tokens=4, stop_tokens=(1,)),
                                torch.Generator().manual_seed(0))
    assert (out.tokens != MASK_TOKEN).all()
    from posttrain.core import Groups

    mask, unit = torch.arange(4) < out.lengths[:, None], torch.tensor([0, 0, 1, 1])
    batch = Groups(payload=Sequences(((5, 6), (7, 8, 9)), unit, out.tokens, out.lengths, 1.0), mask=mask, unit=unit,
                   version=torch.zeros(4, 4), logp_behaviour=out.logp, reward=torch.zeros(4), finished=out.finished,
                   limit=4, extra={"when": out.when, "given": torch.zeros(4, dtype=torch.bool)})
    with torch.no_grad():
        score = policy.log_prob(policy.freeze(batch))
        torch.testing.assert_close(score, out.logp, rtol=0, atol=1e-5)
        torch.testing.assert_close(policy.initial().log_prob(policy.freeze(batch)), score, rtol=0, atol=1e-6)
    policy.save(tmp_path / "saved")
    again = load_language_model(tmp_path / "saved", max_new_tokens=4, precision="fp32", estimate=Estimate("trajectory"))
    with torch.no_grad():
        torch.testing.assert_close(again.policy.log_prob(policy.freeze(batch)), score, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="adapters need the library's"):
        load_language_model(folder, max_new_tokens=4, lora=2)
