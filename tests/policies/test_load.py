"""Which folders can be trained, by which path, and what is said of the others."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, GROUPED, batch_of, own_model, save_model
from transformers import AutoConfig, T5Config

from posttrain.core.errors import UserError
from posttrain.nets.architecture import Rope, Unsupported, read_architecture
from posttrain.policies.fast_lm import FastLM
from posttrain.policies.load import load_language_model
from posttrain.policies.transformers_lm import TransformersLM
from posttrain.rollout.engine import Sampling


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save_model(tmp_path / "llama", "llama")


def edit(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize("kind", ["llama", "llama3", "qwen2", "gemma3_text", "phi3"])
def test_the_fast_path_says_what_transformers_says(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / kind, kind)
    model = load_language_model(folder, max_new_tokens=4, precision="fp32")
    assert isinstance(model.policy, FastLM)
    assert model.notes == ()
    assert (model.precision, model.stop_tokens, model.prompter.longest) == ("fp32", (1,), 60)
    completion = torch.tensor([[5, 6, 7]])
    batch = batch_of([[0, 9, 4]], 1, completion, torch.tensor([3]))
    with torch.no_grad():
        logits = own_model(folder)(torch.tensor([[0, 9, 4, 5, 6, 7]])).logits
        expected = logits[0, 2:-1].log_softmax(-1)[range(3), completion[0]]
        torch.testing.assert_close(model.policy.log_prob(batch)[0], expected, rtol=0, atol=2e-5)


def test_the_slow_path_says_so(tmp_path: Path) -> None:
    model = load_language_model(save_model(tmp_path / "m", "gpt_neox"), max_new_tokens=4, precision="fp32")
    assert isinstance(model.policy, TransformersLM)
    assert model.notes == ("gpt_neox: no fast path (model_type 'gpt_neox' is not one of llama, mistral, granite, "
                           "smollm3, phi3, qwen2, qwen3, gemma, gemma2, gemma3_text, olmo2, olmo3); transformers' own "
                           "model runs it, slower",)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_the_initial_policy_stays_where_it_was(kind: str, tmp_path: Path) -> None:
    model = load_language_model(save_model(tmp_path / "m", kind), max_new_tokens=4, precision="fp32")
    batch = batch_of([[0, 9]], 1, torch.tensor([[5, 6]]), torch.tensor([2]))
    with torch.no_grad():
        before = model.policy.log_prob(batch)
        for weight in model.policy.module.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
        initial = model.policy.initial()
        torch.testing.assert_close(initial.log_prob(batch), before)
        assert not torch.allclose(model.policy.log_prob(batch), before)
    assert not any(weight.requires_grad for weight in initial.module.parameters())


@pytest.mark.parametrize(("kind", "changes", "reason"), [
    ("llama", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_type 'yarn'"),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "rope_type 'dynamic'"),
    ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 2, "long_factor": [4.0] * 2}},
     "rope_type 'longrope'"),
    ("phi3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ("olmo3", {"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "rope_type 'yarn'"),
    ("gemma2", {}, "attn_logit_softcapping is 50.0"),  # transformers' defaults, and Google's
    ("gemma2", {"attn_logit_softcapping": None}, "final_logit_softcapping is 30.0"),
    ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    ("qwen3", {"attention_bias": True}, "attention_bias is True"),
    ("llama", {"attention_bias": True}, "attention_bias is True"),
    ("llama", {"mlp_bias": True}, "mlp_bias is True"),
    ("llama", {"hidden_act": "gelu"}, "activation 'gelu'"),
    ("gpt2", {}, "model_type 'gpt2'"),
])
def test_what_the_fast_path_does_not_describe(kind: str, changes: dict[str, Any], reason: str) -> None:
    config = AutoConfig.for_model(kind, **(CONFIGS["gpt2"] if kind == "gpt2" else GROUPED) | changes).to_dict()
    with pytest.raises(Unsupported, match=reason):
        read_architecture(config)


def test_windows_that_config_json_leaves_out_are_transformers_own() -> None:
    # Mistral's is 4096 tokens, shorter than its context of 131,072, in every layer; Gemma 3's is the same, in five
    # layers of six; Qwen2's begins after max_window_layers.
    assert read_architecture(AutoConfig.for_model("mistral").to_dict()).reaches == {4096}
    gemma = read_architecture(AutoConfig.for_model("gemma3_text").to_dict())
    assert [gemma.reach(i) for i in range(7)] == [4096] * 5 + [None, 4096]
    assert [gemma.rope(i) for i in (4, 5)] == [Rope(1e4), Rope(1e6)]
    qwen = AutoConfig.for_model("qwen2", **GROUPED, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    assert [read_architecture(qwen.to_dict()).reach(i) for i in range(2)] == [None, 8]


def test_sizes_that_config_json_leaves_out_are_transformers_own() -> None:
    # Qwen3's heads are 128 wide by default, whatever hidden_size / num_attention_heads is: here 16 / 4 = 4.
    size = {name: CONFIGS["qwen2"][name] for name in ("hidden_size", "num_attention_heads")}
    assert read_architecture(AutoConfig.for_model("qwen3", **size).to_dict()).head_width == 128


def test_other_weight_names_than_llamas_go_the_slow_way(llama: Path) -> None:
    weights = {name.removeprefix("model."): w for name, w in load_file(llama / "model.safetensors").items()}
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    model = load_language_model(llama, max_new_tokens=4, precision="fp32")
    assert "no weight named 'model.embed_tokens.weight'" in model.notes[0]
    batch = batch_of([[0, 9]], 1, torch.tensor([[5, 6]]), torch.tensor([2]))
    again = load_language_model(save_model(llama.parent / "same", "llama"), max_new_tokens=4, precision="fp32")
    with torch.no_grad():  # transformers knows those names, so nothing was left random
        expected = again.policy.log_prob(batch)
        torch.testing.assert_close(model.policy.log_prob(batch), expected, rtol=0, atol=2e-5)


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_language_model(folder, max_new_tokens=4, precision="fp32")
    line = str(caught.value)
    assert "\n" not in line
    assert str(folder) in line
    return line


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", "gpt_neox")
    weights = load_file(folder / "model.safetensors")
    del weights["gpt_neox.layers.0.mlp.dense_h_to_4h.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "no weights for gpt_neox.layers.0.mlp.dense_h_to_4h.bias" in refusal(folder)


def test_quantised_weights(llama: Path) -> None:
    assert "quantised" in refusal(edit(llama, quantization_config={"quant_method": "gptq"}))


def test_unknown_models(llama: Path) -> None:
    edit(llama, model_type="nonesuch", auto_map={"AutoConfig": "evil.Config"})
    assert "cannot read" in refusal(llama)


def test_models_that_are_not_causal(llama: Path) -> None:
    T5Config(d_model=16, num_layers=1, num_heads=2, d_kv=8, d_ff=16, vocab_size=37).save_pretrained(llama)
    assert "AutoModelForCausalLM cannot read" in refusal(llama)
    save_model(llama, "bert")
    assert "no causal model" in refusal(llama)


def test_no_tokenizer(llama: Path) -> None:
    for path in llama.glob("tokenizer*"):
        path.unlink()
    assert "AutoTokenizer cannot read" in refusal(llama)


GEMMA = Path.home() / ".cache/posttrain/models/gemma3-270m"


@pytest.mark.slow
@pytest.mark.skipif(not GEMMA.exists(), reason="gemma3-270m is not on this machine")
def test_gemma_3_samples_what_it_scores() -> None:
    model = load_language_model(GEMMA, max_new_tokens=8, precision="fp32")
    assert isinstance(model.policy, FastLM)
    prompt = model.prompter.encode("One, two, three, four, five, six,")
    assert prompt[0] == 2
    assert prompt.count(2) == 1  # <bos>, once
    sampling = Sampling(max_new_tokens=4, temperature=0.0, stop_tokens=model.stop_tokens)
    out = model.engine.generate([prompt], 1, sampling, torch.Generator())
    assert model.prompter.decode(out.tokens[0].tolist()).startswith(" seven, eight")
    with torch.no_grad():
        scored = model.policy.log_prob(batch_of([prompt], 1, out.tokens, out.lengths))
        logits = own_model(GEMMA)(torch.tensor([prompt + out.tokens[0].tolist()])).logits[0, len(prompt) - 1 : -1]
    torch.testing.assert_close(out.logp, scored, rtol=0, atol=1e-3)
    expected = logits.log_softmax(-1).gather(1, out.tokens[0, :, None])[:, 0]
    torch.testing.assert_close(scored[0], expected, rtol=0, atol=1e-3)
