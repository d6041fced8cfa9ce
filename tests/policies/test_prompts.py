"""Which tokens a prompt becomes.  Words: <s> 0, </s> 1, and w2 … w36 with ids 2 … 36."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import make_tokenizer

from posttrain.core.errors import UserError
from posttrain.policies.prompts import Prompter

CHAT = ("{{ bos_token }}{% for m in messages %} w2 {{ m['content'] }} </s>{% endfor %}"
        "{% if add_generation_prompt %} w3{% endif %}")


@pytest.mark.parametrize(("template", "expected"), [
    ("$A", [5, 6]), ("<s> $A", [0, 5, 6]), ("<s> $A </s>", [0, 5, 6]), ("$A </s>", [5, 6])])
def test_a_base_models_prompt_is_left_open(template: str, expected: list[int]) -> None:
    assert Prompter(make_tokenizer(template), 9).encode("w5 w6") == expected


def test_what_the_text_itself_says_stays() -> None:
    assert Prompter(make_tokenizer("<s> $A </s>"), 9).encode("<s> w5 </s>") == [0, 5, 1]
    assert Prompter(make_tokenizer("$A"), 9).encode("<s> w5") == [0, 5]


def test_messages_without_a_template_are_plain_text() -> None:
    messages = [{"role": "system", "content": "w4"}, {"role": "user", "content": "w5"}]
    assert Prompter(make_tokenizer("<s> $A"), 9).encode(messages) == [0, 4, 5]


def test_a_chat_template_begins_the_text_once() -> None:
    tokenizer = make_tokenizer("<s> $A </s>")
    tokenizer.chat_template = CHAT
    assert Prompter(tokenizer, 9).encode("w5") == [0, 2, 5, 1, 3]


def test_prompts_that_cannot_be() -> None:
    with pytest.raises(UserError, match="3 tokens, and at most 2"):
        Prompter(make_tokenizer("<s> $A"), 2).encode("w5 w6")
    with pytest.raises(UserError, match="no tokens"):
        Prompter(make_tokenizer(), 9).encode("")
    assert Prompter(make_tokenizer("<s> $A"), 9).encode("") == [0]
