"""The compiled kernels do what torch's operations do, forwards and backwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from drawn import letters
from hugging_face import KINDS, tiny
from torch import Tensor
from torch.testing import assert_close
from toy import toy_model

from posttrain.core import Groups
from posttrain.nets import kernels, transformer
from posttrain.nets import softmax as softmaxes
from posttrain.nets.architecture import read_architecture
from posttrain.nets.fused import Gate, Norm, Turn
from posttrain.nets.hf_weights import from_hf
from posttrain.nets.kernels import FEW, Kernels, Uncompiled, compiled, kernels_for
from posttrain.nets.softmax import softmax, softmax_back
from posttrain.nets.transformer import Transformer
from posttrain.policies.causal_lm import CausalLM, Sequences
from posttrain.rollout.embedded import EmbeddedEngine
from posttrain.rollout.engine import Sampling

try:
    compiled()
except Uncompiled as why:
    pytest.skip(str(why), allow_module_level=True)

HEAD, GROUP = 8, 2
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
ROWS = pytest.mark.parametrize("rows", [1, 2, 7])


def made(dtype: torch.dtype, gelu: bool = False) -> Kernels:
    return compiled(HEAD, GROUP, dtype == torch.bfloat16, gelu)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def near(found: Tensor, expected: Tensor) -> None:
    """To the last digits of fp32; to one unit in the last place of bf16, where sums were taken in another order."""
    assert found.dtype == expected.dtype
    assert_close(found, expected, **({"rtol": 2**-7, "atol": 1e-4} if found.dtype == torch.bfloat16
                                     else {"rtol": 1e-5, "atol": 3e-6}))


@TYPES
@ROWS
def test_norm_and_its_gradients(rows: int, dtype: torch.dtype) -> None:
    """Width 37 is no multiple of any vector; the offset is Gemma's."""
    x, w = drawn(rows, 37).requires_grad_(), drawn(37, seed=1, dtype=dtype).requires_grad_()
    expected = F.rms_norm(x, (37,), w.float() + 1, 1e-5).to(dtype)
    found = Norm.apply(x, w, 1.0, 1e-5, made(dtype))
    near(found, expected)
    g = drawn(rows, 37, seed=2, dtype=dtype)
    pairs = zip(torch.autograd.grad(found, (x, w), g), torch.autograd.grad(expected, (x, w), g), strict=True)
    for ours, theirs in pairs:
        near(ours, theirs)


def test_norm_adds_its_weight_gradient_where_the_optimizer_wants_it() -> None:
    x, w = drawn(3, 16), torch.ones(16, dtype=torch.bfloat16, requires_grad=True)
    w.main_grad = torch.ones(16)  # type: ignore[attr-defined]
    Norm.apply(x, w, 0.0, 1e-5, made(torch.bfloat16)).float().sum().backward()
    assert w.grad is None
    near(w.main_grad, 1 + F.rms_norm(x, (16,), None, 1e-5).sum(0))  # type: ignore[attr-defined]


@TYPES
def test_no_weights_no_norm(dtype: torch.dtype) -> None:
    x = drawn(3, 37)
    assert torch.equal(made(dtype).norm(x, None, 1e-5, dtype), x.to(dtype))


@TYPES
@ROWS
@pytest.mark.parametrize("gelu", [False, True], ids=["silu", "gelu"])
def test_gate_and_its_gradient(gelu: bool, rows: int, dtype: torch.dtype) -> None:
    x = (4 * drawn(rows, 74, dtype=dtype)).requires_grad_()
    a, b = x.chunk(2, -1)
    expected = (F.gelu(a, approximate="tanh") if gelu else F.silu(a)) * b
    found = Gate.apply(x, made(dtype, gelu))
    near(found, expected)
    g = drawn(rows, 37, seed=1, dtype=dtype)
    near(torch.autograd.grad(found, x, g)[0], torch.autograd.grad(expected, x, g)[0])


def test_a_gate_far_from_zero_is_open_or_shut() -> None:
    """SiLU of ±1000 is 1000 and 0; e^1000 is no number of fp32."""
    x = torch.tensor([[1000.0, -1000.0, 1.0, 1.0]])
    assert made(torch.float32).gate(x)[0].tolist() == pytest.approx([1000.0, 0.0], abs=1e-30)


@TYPES
def test_turn_and_its_gradient(dtype: torch.dtype) -> None:
    """Of heads amid others, as queries lie amid keys and values."""
    whole = drawn(7, 5, HEAD, dtype=dtype).requires_grad_()
    angle = drawn(7, 1, HEAD // 2, seed=1)
    x = whole[:, 1:4]
    net = toy_model(dtype=torch.float32)
    expected, found = net.turn(x, angle.cos(), angle.sin()), Turn.apply(x, angle.cos(), angle.sin(), made(dtype))
    near(found, expected)
    g = drawn(7, 3, HEAD, seed=2, dtype=dtype)
    near(torch.autograd.grad(found, whole, g)[0], torch.autograd.grad(expected, whole, g)[0])


@TYPES
@pytest.mark.parametrize("norm", [False, True])
def test_add(norm: bool, dtype: torch.dtype) -> None:
    x, y, w = drawn(3, 37), drawn(3, 37, seed=1, dtype=dtype), drawn(37, seed=2) if norm else None
    expected = x + 0.5 * (y.float() if w is None else F.rms_norm(y.float(), (37,), w, 1e-5))
    assert made(dtype).add(x, y, w, 1e-5, 0.5) is x
    near(x, expected)


@TYPES
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", range(1, FEW + 1))
def test_products_of_few_rows(rows: int, bias: bool, dtype: torch.dtype) -> None:
    x, w, b = drawn(rows, 37, dtype=dtype), drawn(11, 37, seed=1, dtype=dtype), drawn(11, seed=2, dtype=dtype)
    near(made(dtype).product(x, w, b if bias else None), F.linear(x, w, b if bias else None))


# ------------------------------------------------------------------------------------------------ whole architectures


def toy_batch(net: Transformer) -> Groups:
    """Eight completions of two prompts, sampled by the engine itself."""
    prompts = [[5, 6, 7, 8, 9], [5, 6, 7, 10]]
    engine, generator = EmbeddedEngine(net, letters), torch.Generator().manual_seed(0)
    out = engine.generate(prompts, 4, Sampling(max_new_tokens=9), generator)
    rows = torch.arange(8) // 4
    mask = torch.arange(9) < out.lengths[:, None]
    payload = Sequences(tuple(map(tuple, prompts)), rows, out.tokens, out.lengths, 1.0)
    return Groups(payload=payload, mask=mask, unit=rows, version=torch.zeros(mask.shape), logp_behaviour=out.logp,
                  reward=torch.zeros(8), finished=out.finished, limit=9)


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_has_the_gradients_of_torch(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(kind, tied=True)
    arch = read_architecture(model.config.to_dict())
    net = Transformer(arch, from_hf(arch, model.state_dict()))
    assert kernels_for(arch, torch.float32, torch.device("cpu")) is not None
    batch = toy_batch(net)
    found = grads(net, batch)
    monkeypatch.setattr(transformer, "kernels_for", lambda *_: None)
    for (name, _), ours, theirs in zip(net.named_weights(), found, grads(net, batch), strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm() + 1e-7, name


def grads(net: Transformer, batch: Groups) -> list[Tensor]:
    logp = CausalLM(net, None).log_prob(batch)
    weight = drawn(*logp.shape, seed=3)
    return list(torch.autograd.grad((logp * weight * batch.mask).sum(), list(net.weights)))


# ------------------------------------------------------------------------------------------------- where they cannot be


def test_what_is_not_for_them() -> None:
    arch = toy_model().arch
    assert kernels_for(arch, torch.float64, torch.device("cpu")) is None
    assert kernels_for(arch, torch.float32, torch.device("meta")) is None


def test_without_a_compiler_torch_serves(tmp_path: Path) -> None:
    """In a process of its own: what is compiled is kept for a process's life."""
    program = ("import torch\n"
               "from posttrain.nets.kernels import Uncompiled, compiled, kernels_for\n"
               "from toy import toy_model\n"
               "print(kernels_for(toy_model().arch, torch.float32, torch.device('cpu')))\n"
               "try: compiled()\n"
               "except Uncompiled as why: print(why)\n")
    environment = {**os.environ, "PATH": str(tmp_path), "POSTTRAIN_HOME": str(tmp_path),
                   "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("CC", None)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True,
                          timeout=120)
    assert done.stdout.splitlines() == ["None", "no C compiler: none of cc, gcc and clang is on the PATH"]


def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POSTTRAIN_HOME", str(tmp_path))
    monkeypatch.setattr(kernels, "FLAGS", ("-no-such-flag",))
    with pytest.raises(Uncompiled, match="no-such-flag"):
        compiled()
    assert not list(tmp_path.rglob("*.so"))


def test_it_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POSTTRAIN_HOME", str(tmp_path))
    compiled()
    (file,) = tmp_path.rglob("*.so")
    assert [f.name for f in (tmp_path / "kernels").iterdir()] == [file.name]  # nothing half made is left
    monkeypatch.setattr(subprocess, "run", None)  # would fail if called
    compiled()


def test_a_gradient_is_added_to_a_sum_of_another_type() -> None:
    """1 + 2⁻⁸ is no number of bf16: the sum is kept in fp32."""
    total, x = torch.full((2, 3), 2.0**-8), torch.ones(3, 2, dtype=torch.bfloat16).t()
    kernels.add_to(total, x)
    assert total.tolist() == [[1 + 2.0**-8] * 3] * 2


@TYPES
@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("width", [5, 256, 1003])
def test_softmax_and_its_gradient(width: int, entropy: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
                                  ) -> None:
    """One column is beyond what counts as possible, e^−87 times the likeliest."""
    z = drawn(7, width, dtype=dtype) * 3
    z[2, 1] = -300.0
    target, g, h = torch.arange(7) % 5, drawn(7, seed=1), drawn(7, seed=2)
    found = softmax(z, 0.8, mass=True, along=entropy)
    back = softmax_back(z.clone(), 0.8, found, target, g, h if entropy else None)
    monkeypatch.setattr(softmaxes, "_kernels", lambda _: None)
    expected = softmax(z, 0.8, mass=True, along=entropy)
    for x, y in zip(found, expected, strict=True):
        assert (x is None) == (y is None)
        if x is not None and y is not None:
            assert_close(x, y, rtol=1e-5, atol=1e-5)
    near(back, softmax_back(z.clone(), 0.8, expected, target, g, h if entropy else None))


def test_who_draws_and_who_learns_get_the_same_total() -> None:
    """Whether masses are kept or not; 1003 is no multiple of the block."""
    z = drawn(3, 1003)
    assert torch.equal(softmax(z, 0.8, mass=True).total, softmax(z, 0.8, along=True).total)
