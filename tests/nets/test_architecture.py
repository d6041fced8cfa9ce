"""Which configurations the fast path takes, and how it reads them."""

from typing import Any

import pytest

from posttrain.nets.architecture import Architecture, Rope, Unsupported, read_architecture

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152, "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0, "max_position_embeddings": 8192, "tie_word_embeddings": True}
GEMMA3: dict[str, Any] = {
    "model_type": "gemma3_text", "head_dim": 64, "query_pre_attn_scalar": 256, "sliding_window": 512,
    "layer_types": ["sliding_attention", "full_attention"] * 15, "hidden_activation": "gelu_pytorch_tanh",
    "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}}}


def test_reads_llama() -> None:
    assert read_architecture(LLAMA) == Architecture(
        width=576, layers=30, heads=9, kv_heads=3, head_width=64, hidden=1536, vocabulary=49152, norm_epsilon=1e-5,
        rope_theta=100000.0, context=8192, tied=True, qkv_bias=False, qk_norm=False)


def test_newer_configurations_keep_theta_elsewhere() -> None:
    newer = {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    del newer["rope_theta"]
    assert read_architecture(newer).rope_theta == 5e5


def test_each_family_has_its_own_parts() -> None:
    qwen2, qwen3 = (read_architecture({**LLAMA, "model_type": kind}) for kind in ("qwen2", "qwen3"))
    assert (qwen2.qkv_bias, qwen2.qk_norm) == (True, False)
    assert (qwen3.qkv_bias, qwen3.qk_norm) == (False, True)


@pytest.mark.parametrize(("change", "reason"), [
    ({"model_type": "mamba"}, "model_type 'mamba' is not one of llama, mistral, granite, smollm3, phi3, qwen2, qwen3, "
                              "gemma, gemma2, gemma3_text, olmo2, olmo3"),
    ({"model_type": None}, "model_type None is not one of llama, mistral, granite, smollm3, phi3, qwen2, qwen3, "
                           "gemma, gemma2, gemma3_text, olmo2, olmo3"),
    ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_type 'yarn' is not one of default, linear, llama3"),
    ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}},
     "rope_type 'longrope' is not one of default, linear, llama3"),
    ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
     "rope_type 'dynamic' is not one of default, linear, llama3"),
    ({"model_type": "phi3", "partial_rotary_factor": 0.75}, "partial_rotary_factor is 0.75"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
     "partial_rotary_factor is 0.5"),
    (GEMMA3 | {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
                                   "full_attention": {"rope_type": "default", "rope_theta": 1e6}}},
     "the rope of layers with a sliding_window is scaled"),
    (GEMMA3 | {"layer_types": ["full_attention", "chunked_attention"] * 15}, "layer_types names 'chunked_attention'"),
    (GEMMA3 | {"layer_types": None}, "sliding_window is set but layer_types is not"),
    (GEMMA3 | {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    (GEMMA3 | {"hidden_activation": "gelu"}, "activation 'gelu' is not one of silu, gelu_pytorch_tanh"),
    ({"model_type": "gemma2", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
    ({"model_type": "gemma2", "final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
    ({"hidden_act": "gelu"}, "activation 'gelu' is not one of silu, gelu_pytorch_tanh"),
    ({"attention_bias": True}, "attention_bias is True"),
    ({"mlp_bias": True}, "mlp_bias is True"),
])
def test_refuses_what_it_would_compute_wrongly(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unsupported) as caught:
        read_architecture({**LLAMA, **change})
    assert str(caught.value) == reason


def test_a_window_as_long_as_the_context_is_none() -> None:
    for window, reach in ((8192, None), (8191, 8191)):
        arch = read_architecture({**LLAMA, "model_type": "mistral", "sliding_window": window})
        assert arch.context == 8192
        assert arch.reaches == {reach}


def test_only_named_layers_have_a_window_and_positions_of_their_own() -> None:
    arch = read_architecture({**LLAMA, **GEMMA3})
    assert [arch.reach(i) for i in range(3)] == [512, None, 512]
    assert [arch.rope(i) for i in range(3)] == [Rope(1e4), Rope(1e6, 8.0), Rope(1e4)]
    # The query is multiplied by 64^-½ in attention, but by 256^-½ in the model: half as much.
    assert arch.query_scale == 0.5
    assert arch.embed_scale == 24.0  # √576


def test_llama_3_1_says_what_its_positions_were_stretched_from() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    assert read_architecture({**LLAMA, "rope_scaling": scaling}).rope(0) == Rope(1e5, 8.0, 8192, 1.0, 4.0)
    scaling["original_max_position_embeddings"] = 2048
    assert read_architecture({**LLAMA, "rope_scaling": scaling}).rope(0) == Rope(1e5, 8.0, 2048, 1.0, 4.0)


def test_layers_without_positions() -> None:
    arch = read_architecture({**LLAMA, "model_type": "smollm3", "no_rope_layers": [1, 1, 0] * 10})
    assert [arch.rope(i) for i in range(4)] == [Rope(1e5), Rope(1e5), None, Rope(1e5)]


def test_settings_that_a_family_does_not_read_change_nothing() -> None:
    """transformers takes them from any configuration and never looks at them; some conversions leave them there."""
    stray = {"sliding_window": 512, "layer_types": ["sliding_attention"] * 30, "no_rope_layers": [0] * 30,
             "query_pre_attn_scalar": 256, "attention_multiplier": 0.5, "embedding_multiplier": 12.0,
             "residual_multiplier": 0.2, "logits_scaling": 8.0, "hidden_activation": "gelu_pytorch_tanh"}
    assert read_architecture({**LLAMA, **stray}) == read_architecture(LLAMA)
