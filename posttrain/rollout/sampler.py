"""Draw tokens from logits, exactly, and know their log-probabilities without another pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from posttrain.core.errors import UserError
from posttrain.nets.precision import at_least_fp32
from posttrain.nets.softmax import draws_at_once, softmax, softmax_drawn
from posttrain.rollout.engine import Sampling

BLOCK = 256  # tokens in a block of the two-level search
NONE = -1  # in the place of a token: there is none
ANY = -2  # in a pattern: whatever stands there


class Draw(NamedTuple):
    token: Tensor  # [b] long
    logp: Tensor  # [b] log p at the sampling temperature, over all tokens
    log_kept: Tensor  # [b] log p − log q of the token; 0 at temperature 0


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling, before: Tensor | None = None) -> Draw:
    """One token a row: logits [b, V], uniform [b] in [0, 1), before [b, memory].

    The row's own number decides, so a draw does not depend on which other rows are alive.
    before: each row's last `sampling.memory` tokens, oldest first, NONE where it has none; not needed if that is 0.

    Raises:
        UserError: if every token is forbidden.
    """
    assert logits.dim() == 2 and uniform.shape == logits.shape[:1], (logits.shape, uniform.shape)
    before = torch.empty(len(logits), 0, dtype=torch.long) if before is None else before
    assert before.shape == (len(logits), sampling.memory), (before.shape, len(logits), sampling.memory)
    logits = logits.float() if logits.dtype == torch.float64 else logits
    temperature = sampling.temperature or 1.0
    biases = bool(sampling.bad_words or sampling.logit_bias)
    if plain(sampling, logits.shape[1]):
        at_once = softmax_drawn(logits, temperature, uniform)
        if at_once is not None:
            soft, token = at_once
            return Draw(token, soft.log_prob(logits, token, temperature), torch.zeros_like(soft.total))
    soft = drawn = softmax(logits, temperature, mass=not biases)
    z = biased = logits
    if biases:
        z = (at_least_fp32(logits) - soft.most[:, None]) * (1 / temperature)
        biased = bias(z, sampling, before)
        drawn = softmax(biased, 1.0, mass=True)
    if sampling.temperature == 0:
        token, log_kept = biased.argmax(-1), torch.zeros_like(soft.total)
    else:
        assert drawn.mass is not None
        mass = truncate(drawn.mass, sampling)
        token = search(mass, uniform)
        log_kept = ((drawn.total if mass is drawn.mass else mass.sum(-1)) / soft.total).log()
        if biased is not z:
            log_kept = log_kept + (z.gather(1, token[:, None]) - biased.gather(1, token[:, None]))[:, 0]
    return Draw(token, soft.log_prob(logits, token, temperature), log_kept)


def draw_there(logits: Tensor, uniform: Tensor, sampling: Sampling, before: Tensor) -> Draw:
    """`draw` where the logits are, told where the uniform numbers are."""
    there = draw(logits, uniform.to(logits.device), sampling, before.to(logits.device))
    return Draw(*(x.to(uniform.device) for x in there))


def drawn_bytes(sampling: Sampling, head: Tensor) -> int:
    """Most that `draw` and a row's logits hold at a time, for each row; head [V, d]: what gives logits."""
    vocabulary = len(head)
    if plain(sampling, vocabulary) and draws_at_once(head):
        return 4 * vocabulary + 20 * BLOCK
    token = 32 if sampling.top_k > 0 or sampling.top_p < 1 else 18 if sampling.min_p > 0 else 12
    token += 8 if sampling.bad_words or sampling.logit_bias else 0
    return (token * -(-vocabulary // BLOCK) + 20) * BLOCK


def bias(z: Tensor, sampling: Sampling, before: Tensor) -> Tensor:
    """z [b, V] with its biases, −∞ where a token would complete a bad word, and 0 as its largest value again.

    Raises:
        UserError: if nothing is left of a row, or a token is not of the vocabulary.
    """
    tokens, values, patterns, last = (x.to(z.device) for x in _tables(sampling.logit_bias, sampling.bad_words,
                                                                      z.shape[1]))
    biased = z.index_add(1, tokens, (values / (sampling.temperature or 1.0)).expand(len(z), -1))
    row, word = ((patterns == ANY) | (patterns == before[:, None])).all(-1).nonzero(as_tuple=True)
    biased[row, last[word]] = -torch.inf
    most = biased.amax(-1, keepdim=True)
    if sampling.bad_words and bool((most == -torch.inf).any()):
        raise UserError(f"bad_words: the {len(sampling.bad_words)} of them forbid every token of the vocabulary")
    return biased - most


@lru_cache(maxsize=8)
def _tables(logit_bias: tuple[tuple[int, float], ...], bad_words: tuple[tuple[int, ...], ...], vocabulary: int
            ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Biased tokens and their biases; of each bad word what comes before its last token, ANY before that, and the last.

    Raises:
        UserError: on a token that is not of the vocabulary.
    """
    for name, used in (("logit_bias", [t for t, _ in logit_bias]), ("bad_words", [t for w in bad_words for t in w])):
        if max(used, default=0) >= vocabulary:
            raise UserError(f"{name}: token {max(used)} is not of the vocabulary, which has {vocabulary}")
    width = max((len(word) - 1 for word in bad_words), default=0)
    patterns = torch.tensor([[ANY] * (width + 1 - len(word)) + list(word[:-1]) for word in bad_words], dtype=torch.long)
    return (torch.tensor([t for t, _ in logit_bias], dtype=torch.long), torch.tensor([b for _, b in logit_bias]),
            patterns.view(len(bad_words), width), torch.tensor([word[-1] for word in bad_words], dtype=torch.long))


def endings(prompts: Sequence[Sequence[int]], memory: int) -> Tensor:
    """The last `memory` tokens of each prompt, [P, memory] long; NONE before those of a shorter one."""
    ends = [list(p)[len(p) - min(len(p), memory):] for p in prompts]
    return torch.tensor([[NONE] * (memory - len(e)) + e for e in ends], dtype=torch.long).view(len(prompts), memory)


def plain(sampling: Sampling, vocabulary: int) -> bool:
    """Whether tokens are drawn from the model's own distribution at a temperature above 0, nothing changed or cut."""
    changed = sampling.bad_words or sampling.logit_bias or 0 < sampling.top_k < vocabulary
    return sampling.temperature > 0 and sampling.top_p >= 1 and sampling.min_p <= 0 and not changed


def truncate(mass: Tensor, sampling: Sampling) -> Tensor:
    """Zero the mass outside top-k, then top-p of what is left, then below min-p; mass [b, V] unnormalised."""
    vocabulary, kept = mass.shape[1], mass
    if 0 < sampling.top_k < vocabulary or sampling.top_p < 1:
        kept = _likeliest(mass, sampling)
    if sampling.min_p > 0:
        kept = kept.masked_fill(kept < sampling.min_p * kept.amax(-1, keepdim=True), 0)
    return kept


def _likeliest(mass: Tensor, sampling: Sampling) -> Tensor:
    """Zero the mass outside top-k, then top-p."""
    ordered, index = mass.sort(-1, descending=True)
    if 0 < sampling.top_k < mass.shape[1]:
        ordered[:, sampling.top_k:] = 0
    if sampling.top_p < 1:
        before = ordered.cumsum(-1) - ordered  # the smallest set that reaches top_p: keep while less came before
        beyond = before >= sampling.top_p * ordered.sum(-1, keepdim=True)
        beyond[:, 0] = False  # the likeliest token stays, even where top_p = 0
        ordered.masked_fill_(beyond, 0)
    return torch.zeros_like(mass).scatter_(1, index, ordered)


def search(mass: Tensor, uniform: Tensor) -> Tensor:
    """The token at quantile `uniform` of unnormalised mass [b, V], block first and then inside it: no V-wide cumsum."""
    rows, vocabulary = mass.shape
    blocks = F.pad(mass, (0, -vocabulary % BLOCK)).view(rows, -1, BLOCK)
    sums = blocks.sum(-1)
    ends = sums.cumsum(-1)
    at = uniform[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, at, right=True).clamp_(max=ends.shape[1] - 1)
    block = torch.where(sums.gather(1, block) > 0, block, sums.argmax(-1, keepdim=True))  # rounding at the very end
    inner = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0]
    inner_ends = inner.cumsum(-1)
    at = (at - (ends.gather(1, block) - sums.gather(1, block))).clamp_(min=0)
    within = torch.searchsorted(inner_ends, at, right=True).clamp_(max=BLOCK - 1)
    within = torch.where(inner.gather(1, within) > 0, within, inner.argmax(-1, keepdim=True))
    return (block * BLOCK + within)[:, 0]
