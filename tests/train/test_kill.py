"""A run that is killed at any instant and resumed equals the run that was not, byte for byte."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.tiny_folder import write_tiny_folder

KILLS = 12
STEPS = 14


def run(policy: str, out: str, resume: bool) -> None:
    """In a process of its own: one whole run, or what is left of it."""
    import torch

    from posttrain.methods.groups.grpo import GRPO
    from posttrain.train.config import LanguageConfig
    from posttrain.train.run import train

    torch.set_num_threads(1)
    config = LanguageConfig(policy=policy, task="addition", steps=STEPS, out=out, prompts=2, samples=4,
                            max_new_tokens=8, checkpoint_every=3, eval_every=4, eval_problems=8, lr=1e-2,
                            threads=1, seed=3)
    train(GRPO(kl_coef=0.1, epochs=2, minibatches=2), config, resume=resume)


@pytest.fixture(scope="module")
def server() -> multiprocessing.context.BaseContext:
    """Processes that start with everything imported, so that most of their life is the run itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["posttrain.train.run", "posttrain.methods.groups.grpo", "transformers.models.llama",
                                    "tests.train.test_kill"])
    return context


def start(server: multiprocessing.context.BaseContext, policy: Path, out: Path) -> multiprocessing.Process:
    process = server.Process(target=run, args=(str(policy), str(out), (out / "config.json").exists()))
    process.start()
    return process


def finish(server: multiprocessing.context.BaseContext, policy: Path, out: Path) -> float:
    """Seconds that one undisturbed run, or the rest of one, takes."""
    started = time.monotonic()
    process = start(server, policy, out)
    process.join(120)
    assert process.exitcode == 0
    return time.monotonic() - started


def kill_often(server: multiprocessing.context.BaseContext, policy: Path, out: Path, moments: random.Random,
               lifetime: float) -> tuple[int, float]:
    """Start and kill until a run gets through before its moment: how many kills that took, and the newest lifetime."""
    kills = 0
    while not (out / "summary.json").exists():
        started = time.monotonic()
        process = start(server, policy, out)
        process.join(moments.uniform(0, lifetime))  # while it loads, samples, learns, evaluates or writes
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join(10)
            kills += 1
            assert kills < 60, "the run does not get on"
        else:
            assert process.exitcode == 0
            if kills == 0:  # a whole run: the machine may be faster now than it was
                lifetime = time.monotonic() - started
    return kills, lifetime


def test_killed_run_equals_whole_run(server: multiprocessing.context.BaseContext, tmp_path: Path) -> None:
    policy = write_tiny_folder(tmp_path / "policy")
    finish(server, policy, tmp_path / "warm-up")
    whole = tmp_path / "whole"
    lifetime = finish(server, policy, whole)
    moments, kills = random.Random(0), 0
    for number in range(60):
        killed = tmp_path / f"killed-{number}"
        more, lifetime = kill_often(server, policy, killed, moments, lifetime)
        kills += more
        compare(whole, killed)
        if kills >= KILLS:
            break
    assert kills >= KILLS


def compare(whole: Path, killed: Path) -> None:
    for name in ("metrics.jsonl", "evaluations.jsonl", "config.json"):
        expected = (whole / name).read_text().replace(str(whole), str(killed))
        assert (killed / name).read_text() == expected, name
    assert (killed / "final/model.safetensors").read_bytes() == (whole / "final/model.safetensors").read_bytes()
    for step in range(1, STEPS + 1):
        part = f"rollouts/step-{step:06d}.parquet"
        assert (killed / part).read_bytes() == (whole / part).read_bytes(), part
    assert [path.name for path in killed.rglob(".*.tmp")] == []
