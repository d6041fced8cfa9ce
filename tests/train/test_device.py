"""Runs on a device of its own: every tensor is where it is wanted, and the run is the processor's.

The device is pretended (tests/pretend.py), so nothing here says how fast CUDA is, or how it rounds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from pretend import Pretend
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from posttrain.core import Batch, Method
from posttrain.core.errors import UserError
from posttrain.core.placement import device_of
from posttrain.methods.actor_critic.ppo import PPO
from posttrain.methods.groups.grpo import GRPO
from posttrain.methods.imitation.gkd import GKD
from posttrain.nets import transformer
from posttrain.policies.causal_lm import Sequences
from posttrain.policies.load import load_language_model
from posttrain.rollout import buckets, cascade
from posttrain.rollout.engine import Completions, Sampling
from posttrain.train import language
from posttrain.train.config import LanguageConfig
from posttrain.train.display import Display
from posttrain.train.run import train
from tests.tiny_folder import write_tiny_folder


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def config(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageConfig:
    monkeypatch.setattr(language, "RETENTION_PROBLEMS", 0)
    return LanguageConfig(policy=str(policy), task="addition", steps=2, out=str(tmp_path / "run"), prompts=2, samples=2,
                          max_new_tokens=3, eval_problems=1, checkpoint_every=1, lr=1e-3, threads=1, precision="fp32")


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretend]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 1 << 30))
    monkeypatch.setattr(buckets, "Graphs", lambda state: buckets.at_once)  # nothing to capture
    monkeypatch.setattr(cascade, "fused", cascade.plain)  # nor kernels
    monkeypatch.setattr(transformer, "attention_on", lambda device: transformer.tree_attention)
    with Pretend() as pretend:
        yield pretend


def on_host(method: Method[Any], config: LanguageConfig) -> Path:
    return train(method, replace(config, device="cpu", out=config.out + "-host")).folder


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def alike(here: Path, there: Path) -> None:
    """The same tokens at every step, and metrics and weights but for the order of additions."""
    for path in sorted((here / "rollouts").iterdir()):
        mine, other = (pq.read_table(folder / "rollouts" / path.name).to_pylist() for folder in (here, there))
        assert [row["token"] for row in mine] == [row["token"] for row in other]
    for mine, other in zip(rows(here / "metrics.jsonl"), rows(there / "metrics.jsonl"), strict=True):
        assert mine == pytest.approx(other, rel=1e-3, abs=1e-5)
    weights = (load_file(folder / "final" / "model.safetensors") for folder in (here, there))
    for mine, other in zip(*(tensors.values() for tensors in weights), strict=True):
        assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_a_model_that_transformers_runs(tmp_path: Path) -> None:
    """It is moved once it is loaded: what transformers does while it loads is not for a pretended device."""
    folder = write_tiny_folder(tmp_path / "neox")
    shape = GPTNeoXConfig(vocab_size=257, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
                          intermediate_size=32, max_position_embeddings=128, eos_token_id=256, bos_token_id=None)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPTNeoXForCausalLM(shape).save_pretrained(folder)
    model = load_language_model(folder, max_new_tokens=4, precision="fp32", device="cpu")
    prompts = [model.prompter.encode(text) for text in ("What is 3?", "What is 44?")]
    sampling = Sampling(max_new_tokens=4, top_k=50, stop_tokens=(256,), bad_words=((97,),))

    def sampled() -> tuple[Completions, torch.Tensor]:
        out = model.engine.generate(prompts, 2, sampling, torch.Generator().manual_seed(0))
        unit, mask = torch.arange(4) // 2, torch.arange(4) < out.lengths[:, None]
        batch = Batch(payload=Sequences(tuple(map(tuple, prompts)), unit, out.tokens, out.lengths, 1.0), mask=mask,
                      unit=unit, version=torch.zeros(mask.shape), logp_behaviour=out.logp)
        return out, model.policy.log_prob(batch)

    out, logp = sampled()
    with Pretend():
        model.policy.module.to("cuda")
        again, there = sampled()
        assert there.device.type == "cpu"
        there.sum().backward()
    assert torch.equal(out.tokens, again.tokens)
    assert_close((again.logp, there), (out.logp, logp))


@pytest.mark.parametrize(("method", "options"), [
    (GRPO(kl_coef=0.1), {}),
    (GRPO(kl_coef=0.1), {"lora": 2}),
    (PPO(), {"bad_words": ("a",), "top_p": 0.9}),
    (GKD(), {"teacher": ""}),
], ids=["reference", "adapters", "critic", "teacher"])
def test_a_run_on_the_device_is_the_hosts(method: Method[Any], options: dict[str, Any], config: LanguageConfig,
                                          request: pytest.FixtureRequest) -> None:
    config = replace(config, **options | ({"teacher": config.policy} if "teacher" in options else {}))
    host = on_host(method, config)
    pretend = request.getfixturevalue("pretended")
    there = train(method, config).folder
    assert json.loads((there / "config.json").read_text())["device"] == "cuda"
    assert pretend.there
    alike(host, there)


def test_bf16_weights_are_refreshed_from_a_master_beside_them(config: LanguageConfig, pretended: Pretend) -> None:
    out = train(GRPO(kl_coef=0.0), replace(config, precision="bf16")).folder
    assert json.loads((out / "config.json").read_text())["precision"] == "bf16"
    assert all(row["grad_norm"] >= 0 for row in rows(out / "metrics.jsonl"))


@pytest.mark.parametrize("first", ["cuda", "cpu"])
def test_a_run_that_was_killed_goes_on(first: str, config: LanguageConfig, pretended: Pretend) -> None:
    """On the device bit for bit; a checkpoint lies in the host's memory, so one of a processor can go on there too."""
    class Stop(Display):
        def step(self, step: int, *_: object) -> None:
            if step == 2:
                raise RuntimeError("power cut")

    method, config = GRPO(kl_coef=0.1), replace(config, device="cuda")
    whole = train(method, replace(config, out=config.out + "-whole")).folder
    with pytest.raises(RuntimeError, match="power cut"):
        train(method, replace(config, device="cuda" if first == "cuda" else "cpu"), Stop())
    kept = load_file(Path(config.out) / "checkpoints" / "step-000001" / "state.safetensors")
    assert not any(map(pretended.holds, kept.values()))
    again = train(method, config, resume=True).folder
    if first == "cuda":
        for name in ("metrics.jsonl", "final/model.safetensors"):
            assert (again / name).read_bytes() == (whole / name).read_bytes()
    else:
        alike(again, whole)


def test_no_device() -> None:
    if torch.cuda.is_available():
        assert device_of("cuda") == device_of("auto") == torch.device("cuda")
    else:
        assert device_of("auto") == torch.device("cpu")
        with pytest.raises(UserError, match=r"device = 'cuda': torch .* finds no graphics processor \(.*\); allowed "
                                            "here: auto, cpu"):
            device_of("cuda")
    assert device_of("cpu") == torch.device("cpu")


def test_masked_diffusion_stays_with_the_processor(policy: Path, tmp_path: Path, pretended: Pretend) -> None:
    folder = write_tiny_folder(tmp_path / "masked")
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"mask_token_id": 0}))
    assert load_language_model(folder, max_new_tokens=4).device == "cpu"
    with pytest.raises(UserError, match="device = 'cuda': the processor runs masked-diffusion models; allowed: auto"):
        load_language_model(folder, max_new_tokens=4, device="cuda")


def test_the_pretended_device_refuses_what_cuda_refuses() -> None:
    host = torch.ones(2, 3)
    with Pretend():
        there = host.to("cuda")
        for mixed in (lambda: there + host, lambda: host @ there.t(), lambda: torch.cat([there, host]),
                      lambda: host[there[0].long()], lambda: host[0].index_put_((torch.tensor([0]),), there[0, :1])):
            with pytest.raises(AssertionError, match=r"on both sides|on the device"):
                mixed()
        assert (there * torch.tensor(2.0)).device.type == there[torch.tensor([1, 0])].device.type == "cuda"
        assert there.new_zeros(1).device.type == there.view(6)[2:].device.type == "cuda"
        assert there.cpu().device.type == there.sum().to("cpu").device.type == "cpu"
