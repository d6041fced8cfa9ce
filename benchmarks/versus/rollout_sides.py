"""A rollout by one engine, turn by turn: posttrain's own, transformers' `generate`, vLLM's CPU build or OpenVINO GenAI.

    python -m versus.rollout_sides WORK          # WORK: JSON of `Work`

Each side samples as many tokens of the same prompts, ending none early; what a side need not do for its own sampling,
it leaves: the others return no log-probabilities, posttrain always has them.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from posttrain.core.runtime import configure_process
from versus.channel import Channel, peak_bytes

CONVERT_SECONDS = 600.0
Turn = Callable[[int, int], int]  # seed, tokens of each row -> tokens sampled


@dataclass(frozen=True)
class Work:
    """What a side is to do."""

    side: str  # a name in SIDES
    folder: str  # the model, in the Hugging Face layout
    prompts: tuple[tuple[int, ...], ...]  # token ids
    samples: int  # of each prompt
    new_tokens: int
    precision: str  # fp32 or bf16
    threads: int
    warm_tokens: int = 0  # instead of new_tokens in the first turn, which warms up; 0: as many

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Work:
        told = json.loads(text)
        return cls(**{**told, "prompts": tuple(map(tuple, told["prompts"]))})


def posttrain(work: Work) -> Turn:
    import torch

    from posttrain.policies.load import load_language_model
    from posttrain.rollout.engine import Sampling

    engine = load_language_model(Path(work.folder), max_new_tokens=work.new_tokens, precision=work.precision).engine
    engine.update()

    def turn(seed: int, tokens: int) -> int:
        found = engine.generate(work.prompts, work.samples, Sampling(max_new_tokens=tokens),
                                torch.Generator().manual_seed(seed))
        return int(found.lengths.sum())

    return turn


def transformers(work: Work) -> Turn:
    import torch
    from transformers import AutoModelForCausalLM

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[work.precision]
    model = AutoModelForCausalLM.from_pretrained(work.folder, dtype=dtype).eval()
    longest = max(map(len, work.prompts))  # padded on the left, as generate wants it
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in work.prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in work.prompts])

    @torch.inference_mode()
    def turn(seed: int, tokens: int) -> int:
        torch.manual_seed(seed)
        out = model.generate(ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                             num_return_sequences=work.samples, max_new_tokens=tokens,
                             min_new_tokens=tokens, pad_token_id=0)
        return int((out.shape[1] - longest) * len(out))

    return turn


def vllm(work: Work) -> Turn:
    import os

    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1",
                   "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "4"}
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(work.folder, dtype={"fp32": "float32", "bf16": "bfloat16"}[work.precision], max_model_len=2048,
              enable_prefix_caching=True, disable_log_stats=True)
    prompts = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in work.prompts]

    def turn(seed: int, tokens: int) -> int:
        params = SamplingParams(n=work.samples, temperature=1.0, seed=seed, max_tokens=tokens,
                                ignore_eos=True, detokenize=False)
        return sum(len(one.token_ids) for found in llm.generate(prompts, params, use_tqdm=False)
                   for one in found.outputs)

    return turn


def openvino(work: Work) -> Turn:
    """By continuous batching, which alone of its pipelines samples a group; precisions that it would lower are held."""
    import numpy as np
    from openvino import Tensor
    from openvino_genai import ContinuousBatchingPipeline, GenerationConfig, SchedulerConfig

    scheduler = SchedulerConfig()
    scheduler.cache_size, scheduler.enable_prefix_caching = 4, True  # GiB
    precision = {"fp32": "f32", "bf16": "bf16"}[work.precision]
    hold = {"INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": precision,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "INFERENCE_NUM_THREADS": work.threads}
    with tempfile.TemporaryDirectory(prefix="posttrain-benchmark-") as converted:
        # in a process of its own, so that its memory is not the engine's; fp16 holds what these bf16 weights hold
        subprocess.run([sys.executable, "-m", "optimum.commands.optimum_cli", "export", "openvino", "--model",
                        work.folder, "--task", "text-generation-with-past", "--weight-format",
                        {"fp32": "fp32", "bf16": "fp16"}[work.precision], converted],
                       check=True, stdout=sys.stderr, timeout=CONVERT_SECONDS)
        pipeline = ContinuousBatchingPipeline(converted, scheduler, "CPU", hold)
    prompts = [Tensor(np.array([prompt], dtype=np.int64)) for prompt in work.prompts]

    def turn(seed: int, tokens: int) -> int:
        config = GenerationConfig(do_sample=True, temperature=1.0, num_return_sequences=work.samples, rng_seed=seed,
                                  max_new_tokens=tokens, ignore_eos=True)
        return sum(len(ids) for found in pipeline.generate(prompts, [config] * len(prompts))
                   for ids in found.m_generation_ids)

    return turn


SIDES = {"posttrain": posttrain, "transformers": transformers, "vllm": vllm, "openvino": openvino}
PACKAGES = {"openvino": "openvino_genai"}  # whose version is told, where it is not the side's name


def main(work: Work) -> None:
    channel = Channel()
    configure_process()
    import torch

    torch.set_num_threads(work.threads)
    turn = SIDES[work.side](work)
    turn(0, work.warm_tokens or work.new_tokens)
    channel.send(version=importlib.import_module(PACKAGES.get(work.side, work.side)).__version__)
    seed = 0
    while True:
        channel.wait()
        seed += 1
        began = time.perf_counter()
        tokens = turn(seed, work.new_tokens)
        channel.send(seconds=time.perf_counter() - began, tokens=tokens, peak_bytes=peak_bytes())


if __name__ == "__main__":
    main(Work.load(sys.argv[1]))
