"""Sampling with transformers' own model, for architectures without a fast path."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from posttrain.core.errors import UserError
from posttrain.rollout.engine import Completions, Sampling, empty_completions
from posttrain.rollout.sampler import draw_there, endings

ROWS = 64  # sampled at a time; the samples of one prompt stay together
NO_LIMIT = 1 << 30  # tokens; for models whose configuration names no longest sequence


class TransformersEngine:
    """Generates with the policy's own module, so there is nothing to take over at an update.

    Prompts are padded on the left where that leaves the model's predictions alone, which is tried out once;
    where it does not (recurrent states), only prompts of one length are sampled together.
    """

    def __init__(self, model: Any, decode: Callable[[list[int]], str]) -> None:
        self.model, self.decode, self.context = model, decode, context_length(model.config)
        accepted = inspect.signature(model.forward).parameters
        self.takes_positions = "position_ids" in accepted
        self.cache_name = "past_key_values" if "past_key_values" in accepted else "cache_params"
        self.cache_bytes = 0
        self.pads = True
        self.pads = self._padding_is_exact()

    def update(self) -> None:
        """The module is the policy's: it has the present weights."""

    def keep_to(self, cache_bytes: int) -> None:
        raise UserError(f"cache_bytes = {cache_bytes}: transformers' own model runs this policy, whose memory is not "
                        f"counted; {ROWS} rows are sampled at a time")

    def rows_at_once(self, prompts: int, samples: int, prompt_tokens: int, sampling: Sampling) -> int:
        return min(prompts, max(1, ROWS // samples)) * samples

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling,
                 generator: torch.Generator) -> Completions:
        limit, longest = sampling.max_new_tokens, max(map(len, prompts))
        if longest + limit > self.context:
            raise UserError(f"max_new_tokens = {limit}: the longest prompt has {longest} tokens and the "
                            f"context {self.context}; at most {self.context - longest} new tokens fit")
        uniform = torch.rand(len(prompts) * samples, limit, generator=generator)
        out = empty_completions(torch.zeros(uniform.shape, dtype=torch.long))
        for chosen in waves(list(map(len, prompts)), max(1, ROWS // samples), self.pads):
            rows = torch.tensor([prompt * samples + i for prompt in chosen for i in range(samples)])
            self._sample([prompts[prompt] for prompt in chosen], rows, uniform, sampling, out)
        return out

    def _sample(self, prompts: list[Sequence[int]], rows: Tensor, uniform: Tensor, sampling: Sampling,
                out: Completions) -> None:
        """Fill these rows of `out`, the samples of each prompt in a row; rows that end leave the batch."""
        ids, mask = pad_left(prompts)
        logits, cache = self._next(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), None)
        parent = torch.arange(len(prompts)).repeat_interleave(len(rows) // len(prompts))
        logits, mask, position = logits[parent.to(logits.device)], mask[parent], mask.sum(1)[parent]
        ends = endings(prompts, sampling.memory)[parent]
        cache.reorder_cache(parent.to(logits.device))
        for t in range(sampling.max_new_tokens):
            before = torch.cat([ends, out.tokens[rows, :t]], 1)[:, t:]
            token, out.logp[rows, t], out.log_kept[rows, t] = draw_there(logits, uniform[rows, t], sampling, before)
            out.tokens[rows, t] = token
            stop = self._stopped(out.tokens[rows, : t + 1], sampling)
            out.lengths[rows[stop]], out.finished[rows[stop]] = t + 1, True
            go_on = (~stop).nonzero()[:, 0]
            if len(go_on) == 0 or t + 1 == sampling.max_new_tokens:
                return
            if len(go_on) < len(rows):
                rows, token, mask, position, ends = (x[go_on] for x in (rows, token, mask, position, ends))
                cache.reorder_cache(go_on.to(logits.device))
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
            logits, cache = self._next(token[:, None], mask, position[:, None] + t, cache)

    def _next(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits [b, V] after ids [b, n], and the cache with them; mask [b, seen + n], positions [b, n]."""
        options: dict[str, Any] = {self.cache_name: cache, "use_cache": True, "logits_to_keep": 1}
        device = self.model.device
        if self.pads:
            options["attention_mask"] = mask.to(device)
        if self.takes_positions:
            options["position_ids"] = positions.to(device)
        out = self.model(ids.to(device), **options)
        return out.logits[:, -1], out[self.cache_name]

    def _stopped(self, tokens: Tensor, sampling: Sampling) -> Tensor:
        """[b] bool: rows of tokens [b, n] that ended with their last one."""
        stop = torch.isin(tokens[:, -1], torch.tensor(sampling.stop_tokens, dtype=torch.long))
        for i in (~stop).nonzero()[:, 0].tolist() if sampling.stop_strings else ():
            text = self.decode(tokens[i].tolist())
            stop[i] = any(s in text for s in sampling.stop_strings)
        return stop

    @torch.no_grad()
    def _padding_is_exact(self) -> bool:
        """Whether a prompt with two masked tokens before it, and a step after it, end where it ends alone."""
        ids = torch.arange(6)[None] % self.model.config.get_text_config().vocab_size
        mask, positions = torch.tensor([[0, 0, 1, 1, 1, 1]]), torch.tensor([[0, 0, 0, 1, 2, 3]])
        alone, _ = self._next(ids[:, 2:], mask[:, 2:], positions[:, 2:], None)
        _, cache = self._next(ids[:, :-1], mask[:, :-1], positions[:, :-1], None)
        padded, _ = self._next(ids[:, -1:], mask, positions[:, -1:], cache)
        return alike(alone, padded)


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether two sets of logits differ by no more than rounding."""
    tolerance = 1e-4 if one.dtype == torch.float32 else 0.05
    return bool((one - other).abs().max() <= tolerance * (one.max() - one.min()))


def context_length(config: Any) -> int:
    """The longest sequence of a model, tokens."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or NO_LIMIT


def waves(lengths: Sequence[int], most: int, mixed: bool) -> Iterator[list[int]]:
    """Prompts in order of length, at most so many at a time; of one length only unless `mixed`."""
    wave: list[int] = []
    for prompt in sorted(range(len(lengths)), key=lengths.__getitem__):
        if wave and (len(wave) == most or not (mixed or lengths[prompt] == lengths[wave[0]])):
            yield wave
            wave = []
        wave.append(prompt)
    if wave:
        yield wave


def pad_left(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and a mask, both [P, longest]: 0 before each prompt."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
    return ids, torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
