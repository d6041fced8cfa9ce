"""Which configurations the fast path takes, and how it reads them."""

from typing import Any

import pytest

from posttrain.nets.architecture import Architecture, Unsupported, read_architecture

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152, "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0, "max_position_embeddings": 8192, "tie_word_embeddings": True}


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
    ({"model_type": "mamba"}, "model_type 'mamba' is not one of llama, mistral, qwen2, qwen3"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "rope_type 'llama3' is scaled"),
    ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_type 'linear' is scaled"),
    ({"model_type": "mistral", "sliding_window": 4096}, "sliding_window 4096 is shorter than the context"),
    ({"hidden_act": "gelu"}, "activation or biases differ from Llama's"),
    ({"attention_bias": True}, "activation or biases differ from Llama's"),
    ({"mlp_bias": True}, "activation or biases differ from Llama's"),
])
def test_refuses_what_it_would_compute_wrongly(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unsupported) as caught:
        read_architecture({**LLAMA, **change})
    assert str(caught.value) == reason


def test_a_window_as_long_as_the_context_is_none() -> None:
    assert read_architecture({**LLAMA, "model_type": "mistral", "sliding_window": 8192}).context == 8192
