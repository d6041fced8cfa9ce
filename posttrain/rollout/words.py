"""Options of sampling that a user writes as text, in tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from posttrain.core.errors import UserError

EDGE = 8  # characters that may read otherwise where a text is cut between two tokens: parts of a sign, a space


def bad_words(tokenizer: Any, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The tokens of every text, and with a space before it, as a word stands inside a line.

    These are the tokens that the tokenizer itself makes of the text; other tokens may spell it too.

    Raises:
        UserError: on a text without tokens.
    """
    words: dict[tuple[int, ...], None] = {}
    for text in texts:
        found = [encode(tokenizer, form) for form in (text, f" {text}")]
        if not found[0]:
            raise UserError(f"bad_words = {text!r}: has no tokens")
        words |= dict.fromkeys(map(tuple, found))
    return tuple(words)


def logit_bias(tokenizer: Any, texts: Sequence[str]) -> tuple[tuple[int, float], ...]:
    """(token, bias) from `TEXT=BIAS`, where TEXT is one token, its spaces included.

    Raises:
        UserError: on another form, or a text that is not one token.
    """
    biases = []
    for text in texts:
        word, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise UserError(f"logit_bias = {text!r}: must be a token's text and a number, as in ' maybe=-2.5'")
        ids = encode(tokenizer, word)
        if len(ids) != 1:
            parts = ", ".join(repr(tokenizer.decode([i])) for i in ids)
            raise UserError(f"logit_bias = {text!r}: {word!r} must be one token, and is {len(ids)}: {parts or 'none'}")
        biases.append((ids[0], value))
    return tuple(biases)


def encode(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text as it stands inside another."""
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def completes(decode: Callable[[list[int]], str], tokens: list[int], strings: Sequence[str]) -> bool:
    """Whether the text of these tokens holds one of the strings, where that without the last token holds none.

    Only the end of the text can tell, so that a long completion costs no more than a short one.
    """
    count, enough = 8, max(map(len, strings)) + len(decode(tokens[-1:])) + 2 * EDGE
    while count < len(tokens):
        end = decode(tokens[-count:])
        if len(end) >= enough:
            if not any(s in end for s in strings):
                return False
            break
        count *= 2
    text = decode(tokens)
    return any(s in text for s in strings)
