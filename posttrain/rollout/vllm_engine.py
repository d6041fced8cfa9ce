"""vLLM as the engine: its scheduler, cache and kernels compute the logits, and `draw` takes the tokens from them.

vLLM would report log p of the untouched logits or log q of what its own sampler left of them, but neither log p at a
temperature beside a truncation nor both at once.  Drawing from its logits as every engine here does gives all three
columns exactly, every option of `Sampling`, and the same tokens as the other engines for the same logits and seed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posttrain.core.errors import UserError
from posttrain.rollout.engine import Completions, Sampling, empty_completions
from posttrain.rollout.sampler import draw_there, endings
from posttrain.rollout.transformers_engine import NO_LIMIT

CACHE_BYTES = 2 << 30  # of keys and values; rows that do not fit wait for others to end
STEP_TOKENS = 8192  # of prompts, computed at a time
SETTINGS = {  # vLLM's environment; what the user has set stays
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # bound threads would be the training pass's too
    "VLLM_NO_USAGE_STATS": "1",  # or every start is reported to its makers
    "VLLM_LOGGING_LEVEL": "ERROR",
}


class VllmEngine:
    """Generates with a vLLM instance in this process; its weights are a second copy, replaced at every update."""

    def __init__(self, folder: Path, weights: Callable[[], Mapping[str, Tensor]], decode: Callable[[list[int]], str],
                 context: int, dtype: torch.dtype) -> None:
        """folder: configuration and first weights, Hugging Face's.  weights: the policy's present ones, named as there.

        context: longest sequence, tokens.  dtype: of vLLM's weights and cache.

        Raises:
            UserError: if vLLM is not installed or cannot run this model.
        """
        self.weights, self.decode, self.cache_bytes = weights, decode, 0
        self.draws: Draws | None = None  # those of the `generate` under way
        self.llm = _open(folder, self._take, context, dtype)
        self.context = min(context, self.llm.model_config.max_model_len)  # as much as its cache holds

    def _take(self, logits: Tensor, rows: Tensor, t: Tensor) -> Tensor:
        assert self.draws is not None
        return self.draws.take(logits, rows, t)

    @torch.no_grad()
    def update(self) -> None:
        """In memory: the tensors are copied one by one into vLLM's own layout."""
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(self.weights().items())})
        self.llm.apply_model(_pack_head)

    def keep_to(self, cache_bytes: int) -> None:
        raise UserError(f"cache_bytes = {cache_bytes}: vLLM keeps a cache of its own, of {CACHE_BYTES} bytes, in which "
                        "rows wait for room by themselves")

    def rows_at_once(self, prompts: int, samples: int, prompt_tokens: int, sampling: Sampling) -> int:
        return prompts * samples

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling,
                 generator: torch.Generator) -> Completions:
        from vllm import SamplingParams

        limit, longest = sampling.max_new_tokens, max(map(len, prompts))
        if longest + limit > self.context:
            raise UserError(f"max_new_tokens = {limit}: the longest prompt has {longest} tokens and the "
                            f"context {self.context}; at most {self.context - longest} new tokens fit")
        self.draws = Draws(prompts, samples, sampling, generator, self.decode)
        self.llm.reset_prefix_cache()  # it holds keys of older weights, and a call must not depend on the one before
        asked = [{"prompt_token_ids": list(p)} for p in prompts for _ in range(samples)]
        params = [SamplingParams(temperature=0.0, max_tokens=limit, ignore_eos=True, detokenize=False,
                                 extra_args={"row": row}) for row in range(len(asked))]
        names, core = self.llm.enqueue(asked, params, use_tqdm=False), self.llm.llm_engine
        try:
            while core.has_unfinished_requests():
                core.step()
                core.abort_request([names[row] for row in self.draws.ended()], internal=True)
        finally:
            core.abort_request(names, internal=True)
        return self.draws.out


class Draws:
    """What was drawn for each row so far, whichever rows vLLM puts together in a step."""

    def __init__(self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling, generator: torch.Generator,
                 decode: Callable[[list[int]], str]) -> None:
        rows, limit = len(prompts) * samples, sampling.max_new_tokens
        self.sampling, self.decode = sampling, decode
        self.stop_tokens = torch.tensor(sampling.stop_tokens, dtype=torch.long)
        self.uniform = torch.rand(rows, limit, generator=generator)
        self.out = empty_completions(torch.zeros(rows, limit, dtype=torch.long))
        self.seen = torch.cat([endings(prompts, sampling.memory).repeat_interleave(samples, 0), self.out.tokens], 1)
        self._ended: list[int] = []

    def take(self, logits: Tensor, rows: Tensor, t: Tensor) -> Tensor:
        """Token t [b] of these rows [b], [b], from their logits [b, V] (may be overwritten)."""
        out, memory = self.out, self.sampling.memory
        before = self.seen[rows[:, None], t[:, None] + torch.arange(memory)]
        token, logp, log_kept = draw_there(logits, self.uniform[rows, t], self.sampling, before)
        out.tokens[rows, t], out.logp[rows, t], out.log_kept[rows, t] = token, logp, log_kept
        self.seen[rows, t + memory] = token
        stop = torch.isin(token, self.stop_tokens).tolist()
        for row, n, by_token in zip(rows.tolist(), (t + 1).tolist(), stop, strict=True):
            if by_token or self._spells_stop(out.tokens[row, :n]):
                out.lengths[row], out.finished[row] = n, True
                self._ended.append(row)
        return token

    def _spells_stop(self, tokens: Tensor) -> bool:
        strings = self.sampling.stop_strings
        text = self.decode(tokens.tolist()) if strings else ""
        return any(s in text for s in strings)

    def ended(self) -> list[int]:
        """Rows that stopped since this was last asked."""
        ended, self._ended = self._ended, []
        return ended


def _open(folder: Path, take: Callable[[Tensor, Tensor, Tensor], Tensor], context: int, dtype: torch.dtype) -> Any:
    """A vLLM instance in this process in which `take` decides every token."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process, where weights change hands in memory
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    set_num_threads, step = torch.set_num_threads, max(STEP_TOKENS, context if context < NO_LIMIT else 0)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng():  # it seeds torch's one generator
            warnings.simplefilter("ignore")
            from vllm import LLM

            return LLM(model=str(folder), dtype=str(dtype).removeprefix("torch."), max_model_len=-1,  # what fits
                       skip_tokenizer_init=True, logits_processors=[_processor(take)],
                       enforce_eager=True,  # compiling takes a minute
                       kv_cache_memory_bytes=CACHE_BYTES, max_num_batched_tokens=step,
                       enable_chunked_prefill=False,  # a prompt cut in two would be answered twice
                       async_scheduling=False,  # a token is known before the next is computed
                       trust_remote_code=False, disable_log_stats=True, use_tqdm_on_load=False)
    except (ValueError, NotImplementedError, ImportError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "vllm":
            raise UserError("engine = 'vllm': vLLM is not installed; pip install 'posttrain[vllm]', or "
                            "--engine embedded") from None
        reason = "; ".join(line.strip() for line in str(error).strip().splitlines()[:3])
        raise UserError(f"engine = 'vllm': vLLM cannot run '{folder}': {reason}") from error
    finally:
        torch.set_num_threads = set_num_threads  # vLLM puts one in its place that does nothing


def _pack_head(model: Any) -> None:
    """A head that shares the embedding's weights has its own layout of them on processors, which a reload forgets."""
    head: Any = getattr(model, "lm_head", None)
    if hasattr(head, "quant_method"):
        head.quant_method.process_weights_after_loading(head)


def _processor(take: Callable[[Tensor, Tensor, Tensor], Tensor]) -> type:
    """vLLM's hook between logits and its own sampler, which is left with one token to choose."""
    from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

    class Processor(LogitsProcessor):  # type: ignore[misc]
        def __init__(self, *_: Any) -> None:
            self.rows: dict[int, tuple[int, list[int]]] = {}  # place in the batch -> row, its tokens so far

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: Any) -> None:
            process_dict_updates(self.rows, batch_update, lambda params, _, tokens: (params.extra_args["row"], tokens))

        def apply(self, logits: Tensor) -> Tensor:
            here = [self.rows[place] for place in range(len(logits))]
            token = take(logits, torch.tensor([row for row, _ in here]), torch.tensor([len(done) for _, done in here]))
            return torch.zeros_like(logits).scatter_(1, token.to(logits.device)[:, None], 1.0)

    return Processor
